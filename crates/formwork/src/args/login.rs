//! Options of `formwork login` and `formwork logout`.

use clap::Args;

/// Options of `formwork login`.
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// The registry, such as `ghcr.io`
    #[arg(default_value = "docker.io")]
    pub(crate) registry: String,
    /// User name [default: asked for]
    #[arg(short, long, value_name = "NAME")]
    pub(crate) username: Option<String>,
    /// Password; others may see it in the list of processes
    #[arg(short, long, conflicts_with = "password_stdin")]
    pub(crate) password: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username")]
    pub(crate) password_stdin: bool,
}

/// Options of `formwork logout`.
#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    /// The registry, such as `ghcr.io`
    #[arg(default_value = "docker.io")]
    pub(crate) registry: String,
}

/// A registry as it stands before the names of its images: users also give its address.
pub(crate) fn bare_registry(text: &str) -> &str {
    let bare = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let host = bare.unwrap_or(text).split('/').next().unwrap_or_default();
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

#[cfg(test)]
mod tests {
    use super::bare_registry;

    #[test]
    fn addresses_mean_their_registries() {
        for (text, registry) in [
            ("ghcr.io", "ghcr.io"),
            ("localhost:5000", "localhost:5000"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("https://ghcr.io/team", "ghcr.io"),
        ] {
            assert_eq!(bare_registry(text), registry);
        }
    }
}
