//! ADD of what lies elsewhere.

use std::sync::Arc;
use std::sync::mpsc::channel;

use formwork_diagnostics::Event;
use formwork_graph::{HttpSource, OpId, RemoteSource};
use formwork_remote::{Fetch, Material, RemoteError, Watch};
use formwork_solver::{Task, step_id};

use crate::root::Output;
use crate::runner::Worker;
use crate::{Checkout, Secrets, WorkerError};

impl Worker {
    /// The files of a source.
    pub(crate) fn fetch(
        &self,
        task: &Task<'_, Output>,
        source: &RemoteSource,
    ) -> Result<Output, WorkerError> {
        match source {
            RemoteSource::Http(http) => self.download(task.id, http),
            RemoteSource::Git(git) => {
                let is_canceled = || self.cancel.is_canceled();
                let (config, secrets) = (&self.config.git, &self.config.secrets);
                let (step, label) = (step_id(task.id), Arc::from("received"));
                let progress = |current| {
                    let label = Arc::clone(&label);
                    self.events.emit(Event::StepProgress { step, label, current, total: None });
                };
                let watch = Watch { is_canceled: &is_canceled, progress: &progress };
                let checkout = Checkout::of(&self.store, config, secrets, git, watch);
                let checkout = match checkout {
                    Err(_) if is_canceled() => return Err(canceled()),
                    checkout => checkout?,
                };
                if let Some(warning) = checkout.warning() {
                    self.warn(task.step, None, warning);
                }
                Ok(checkout.output())
            }
        }
    }

    fn download(&self, id: OpId, source: &HttpSource) -> Result<Output, WorkerError> {
        let downloads = self.config.downloads.clone();
        let downloads =
            downloads.ok_or_else(|| WorkerError::Internal("nothing can be fetched".to_owned()))?;
        let (source, events, cancel) =
            (source.clone(), Arc::clone(&self.events), self.cancel.clone());
        let authorization = self.config.secrets.authorization_for(&source.url);
        let step = step_id(id);
        self.unless_canceled(move || {
            let label: Arc<str> = source.name.as_str().into();
            let progress = |current, total| {
                let label = Arc::clone(&label);
                events.emit(Event::StepProgress { step, label, current, total });
                !cancel.is_canceled()
            };
            let fetch = Fetch { authorization: authorization.as_deref(), progress: &progress };
            let (tree, digest) = downloads.tree(&source, &fetch)?;
            Ok(Output::Fetched(Arc::new(tree), Arc::new(Material::file(&source, &digest))))
        })
    }

    /// Fetches on a thread of its own, which is left behind where somebody asks to stop: it may
    /// wait for a network that never answers.
    fn unless_canceled(
        &self,
        fetch: impl FnOnce() -> Result<Output, RemoteError> + Send + 'static,
    ) -> Result<Output, WorkerError> {
        let (give, result) = channel();
        let stop = give.clone();
        self.cancel.when_canceled(move || drop(stop.send(None)));
        let failed =
            |error| WorkerError::from(formwork_fs::FsError::new("start", "a thread", error));
        std::thread::Builder::new()
            .spawn(move || drop(give.send(Some(fetch()))))
            .map_err(failed)?;
        match result.recv() {
            Ok(Some(fetched)) => Ok(fetched?),
            _ => Err(canceled()),
        }
    }
}

fn canceled() -> WorkerError {
    WorkerError::Sandbox(formwork_sandbox::SandboxError::Cancelled)
}

impl Secrets {
    /// What the `Authorization` header says to the host of an address: the secret
    /// `HTTP_AUTH_HEADER_<host>` as it is, or `HTTP_AUTH_TOKEN_<host>` as a bearer's token.
    pub fn authorization_for(&self, url: &str) -> Option<String> {
        let rest = url.split_once("://")?.1;
        let host = rest.split(['/', '?', '#']).next()?.rsplit('@').next()?;
        let bare = host.rsplit_once(':').map_or(host, |(bare, _)| bare);
        let secret = |prefix: &str, host: &str| {
            let value = self.get(&format!("{prefix}{host}"))?;
            Some(std::str::from_utf8(value).ok()?.trim().to_owned())
        };
        [host, bare].into_iter().find_map(|host| {
            let token = || Some(format!("Bearer {}", secret("HTTP_AUTH_TOKEN_", host)?));
            secret("HTTP_AUTH_HEADER_", host).or_else(token)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_for_one_host() {
        let mut secrets = Secrets::default();
        secrets.insert("HTTP_AUTH_HEADER_a.example", "Basic x\n");
        secrets.insert("HTTP_AUTH_TOKEN_b.example:81", "t");
        for (url, header) in [
            ("https://a.example/x", Some("Basic x")),
            ("https://u@a.example:80?q", Some("Basic x")),
            ("http://b.example:81/", Some("Bearer t")),
            ("http://b.example/a.example", None),
            ("http://c.a.example/", None),
        ] {
            assert_eq!(secrets.authorization_for(url).as_deref(), header, "{url}");
        }
    }
}
