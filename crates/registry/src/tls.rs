//! TLS for ureq, by rustls with ring.
//!
//! ureq can do this by itself, though not in the way that registries need: the server's
//! certificate that docker's documentation tells people to make, and to put into `certs.d`, is an
//! authority's (`CA:TRUE`), which rustls refuses as a server's even where it is trusted.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore,
    SignatureScheme, StreamOwned,
};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
    TransportAdapter,
};

use crate::trust::Identity;

/// Wraps connections to `https` addresses in TLS: those to one host, and those to the proxy through
/// which it is reached.
pub(crate) struct TlsConnector {
    host: String,
    to_host: Arc<ClientConfig>,
    to_proxy: Arc<ClientConfig>,
}

impl TlsConnector {
    /// A connector for a host (without its port) that has to prove itself by one of the roots, or
    /// not at all where that is `None`. A proxy always has to. The host alone is told who this
    /// client is, if it asks.
    ///
    /// # Errors
    ///
    /// Where the identity's key does not fit its certificate, or cannot be used.
    pub(crate) fn new(
        host: &str,
        roots: Option<Vec<CertificateDer<'static>>>,
        proxy_roots: Vec<CertificateDer<'static>>,
        identity: Option<Identity>,
    ) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let to_host = configure(roots, identity, &provider)?;
        let to_proxy = configure(Some(proxy_roots), None, &provider)?;
        Ok(Self { host: host.to_owned(), to_host, to_proxy })
    }
}

fn configure(
    roots: Option<Vec<CertificateDer<'static>>>,
    identity: Option<Identity>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let verifier = Verifier::new(roots, provider)?;
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    Ok(Arc::new(match identity {
        Some(Identity { certificates, key }) => config.with_client_auth_cert(certificates, key)?,
        None => config.with_no_client_auth(),
    }))
}

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = Either<In, TlsTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() || transport.is_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let host = details.uri.host().unwrap_or_default();
        let name = ServerName::try_from(host.trim_start_matches('[').trim_end_matches(']'))
            .map_err(|_| ureq::Error::BadUri(host.to_owned()))?;
        let is_proxy = !host.eq_ignore_ascii_case(&self.host);
        let config = if is_proxy { &self.to_proxy } else { &self.to_host };
        let mut connection = ClientConnection::new(config.clone(), name.to_owned())
            .map_err(|error| ureq::Error::Other(Box::new(error)))?;
        let mut socket = TransportAdapter::new(
            Box::new(transport) as Box<dyn Transport>,
            details.current_time.clone(),
        );
        socket.set_timeout(details.timeout);
        connection.complete_io(&mut socket)?;
        let stream = StreamOwned::new(connection, socket);
        let buffers = LazyBuffers::new(
            details.config.input_buffer_size(),
            details.config.output_buffer_size(),
        );
        Ok(Some(Either::B(TlsTransport { buffers, stream })))
    }
}

impl fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConnector").finish_non_exhaustive()
    }
}

/// A connection in TLS.
pub(crate) struct TlsTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        self.stream.write_all(&self.buffers.output()[..amount])?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsTransport").finish_non_exhaustive()
    }
}

/// Decides whether a server is who it says.
#[derive(Debug)]
struct Verifier {
    check: Check,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
enum Check {
    /// Everybody is believed.
    Nobody,
    /// There is nobody whose word counts.
    NoRoots,
    /// The chain must lead to a root, or the certificate must be one.
    Chain { webpki: Arc<WebPkiServerVerifier>, roots: Vec<CertificateDer<'static>> },
}

impl Verifier {
    fn new(
        roots: Option<Vec<CertificateDer<'static>>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, rustls::Error> {
        let provider = provider.clone();
        let Some(roots) = roots else { return Ok(Self { check: Check::Nobody, provider }) };
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(roots.iter().cloned());
        if store.is_empty() {
            return Ok(Self { check: Check::NoRoots, provider });
        }
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(Self { check: Check::Chain { webpki, roots }, provider })
    }
}

impl Verifier {
    fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.provider.signature_verification_algorithms
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let (webpki, roots) = match &self.check {
            Check::Nobody => return Ok(ServerCertVerified::assertion()),
            Check::NoRoots => return Err(CertificateError::UnknownIssuer.into()),
            Check::Chain { webpki, roots } => (webpki, roots),
        };
        let chain =
            webpki.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match chain {
            // The dates have been checked before this is found out, the name has not.
            Err(error) if is_authority(&error) && roots.iter().any(|root| root == end_entity) => {
                let certificate = ParsedCertificate::try_from(end_entity)?;
                verify_server_name(&certificate, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match self.check {
            // The certificate may be one that cannot even be read.
            Check::Nobody => Ok(HandshakeSignatureValid::assertion()),
            _ => verify_tls12_signature(message, cert, dss, self.algorithms()),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match self.check {
            // The certificate may be one that cannot even be read.
            Check::Nobody => Ok(HandshakeSignatureValid::assertion()),
            _ => verify_tls13_signature(message, cert, dss, self.algorithms()),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms().supported_schemes()
    }
}

/// Whether a certificate was refused because it is an authority's.
pub(crate) fn is_authority(error: &rustls::Error) -> bool {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
            other.0.downcast_ref() == Some(&webpki::Error::CaUsedAsEndEntity)
        }
        _ => false,
    }
}
