//! Signatures of requests to S3 and what speaks like it (AWS Signature Version 4). Pure.

use ring::hmac;

use formwork_oci::Digest;

use crate::address::encode;

/// What it takes to sign.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signer<'a> {
    pub(super) access_key: &'a str,
    pub(super) secret_key: &'a str,
    pub(super) region: &'a str,
    /// The time as `20250131T235959Z`.
    pub(super) time: &'a str,
}

/// What is signed of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signed<'a> {
    pub(super) method: &'a str,
    /// The path as it stands in the address.
    pub(super) path: &'a str,
    /// Names and values of the query, sorted by name.
    pub(super) query: &'a [(&'a str, String)],
    /// Lower-case names and values of headers, sorted by name.
    pub(super) headers: &'a [(&'a str, String)],
    /// The SHA-256 of the body in hexadecimal digits.
    pub(super) payload: &'a str,
}

impl Signer<'_> {
    /// The value of the `Authorization` header.
    pub(super) fn authorization(&self, request: Signed<'_>) -> String {
        let date = &self.time[..8];
        let scope = format!("{date}/{}/s3/aws4_request", self.region);
        let names: Vec<&str> = request.headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let canonical = canonical(request, &names);
        let hash = Digest::of(canonical.as_bytes());
        let text = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{}", self.time, hash.hex());
        let first = hmac_of(format!("AWS4{}", self.secret_key).as_bytes(), date);
        let key = [self.region, "s3", "aws4_request"]
            .iter()
            .fold(first, |key, part| hmac_of(key.as_ref(), part));
        let signature: String = hmac_of(key.as_ref(), &text)
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope},SignedHeaders={names},Signature={signature}",
            self.access_key
        )
    }
}

fn canonical(request: Signed<'_>, names: &str) -> String {
    let headers: String =
        request.headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    format!(
        "{}\n{}\n{}\n{headers}\n{names}\n{}",
        request.method,
        request.path,
        query(request.query),
        request.payload
    )
}

/// The query as it stands in the address.
pub(super) fn query(pairs: &[(&str, String)]) -> String {
    let pair = |(name, value): &(&str, String)| format!("{}={}", encode(name), encode(value));
    pairs.iter().map(pair).collect::<Vec<_>>().join("&")
}

/// The path of an object as it stands in an address.
pub(super) fn path(parts: &[&str]) -> String {
    let whole = parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("/");
    let encoded: Vec<String> = whole.split('/').map(encode).collect();
    format!("/{}", encoded.join("/"))
}

fn hmac_of(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// The examples of Amazon's documentation ("Authenticating Requests: Using the Authorization
    /// Header").
    #[test]
    fn the_examples_of_the_documentation_are_signed_as_there() {
        let signer = Signer {
            access_key: "AKIAIOSFODNN7EXAMPLE",
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            region: "us-east-1",
            time: "20130524T000000Z",
        };
        let header = |name, value: &str| (name, value.to_owned());
        let host = header("host", "examplebucket.s3.amazonaws.com");
        let payload = header("x-amz-content-sha256", EMPTY);
        let date = header("x-amz-date", "20130524T000000Z");
        let headers = [host.clone(), header("range", "bytes=0-9"), payload.clone(), date.clone()];
        let get = Signed {
            method: "GET",
            path: "/test.txt",
            query: &[],
            headers: &headers,
            payload: EMPTY,
        };
        assert!(signer.authorization(get).ends_with(
            "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        ));
        let list = Signed {
            path: "/",
            query: &[("max-keys", "2".to_owned()), ("prefix", "J".to_owned())],
            headers: &[host, payload, date],
            ..get
        };
        assert_eq!(
            signer.authorization(list),
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
             SignedHeaders=host;x-amz-content-sha256;x-amz-date,\
             Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
        );
    }

    #[test]
    fn paths_and_queries_are_encoded() {
        assert_eq!(path(&["bucket", "", "a b/c+d"]), "/bucket/a%20b/c%2Bd");
        assert_eq!(query(&[("prefix", "a/b".to_owned())]), "prefix=a%2Fb");
    }
}
