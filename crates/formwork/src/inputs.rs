//! Where the Dockerfile and the files of a build come from.
//!
//! What lies on the user's disk is looked at before the program enters a namespace of its own.
//! What is sent or lies elsewhere is put into the store, which is open only afterwards.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use formwork_build::{
    BuildRequest, Cancel, ContextSpec, FetchedContext, GitLocation, Host, ImageLocation,
    NamedContext, Sent, git_location, is_http, without_secrets,
};
use formwork_diagnostics::{EventSink, SourceFile};

use crate::args::BuildArgs;
use crate::exit::Failure;

/// The name of the main context.
const MAIN: &str = "context";
/// The names that a Dockerfile may have.
const DOCKERFILES: [&str; 3] = ["Dockerfile", "dockerfile", "Containerfile"];
/// The largest Dockerfile and ignore file that are read.
const TEXT_LIMIT: u64 = 64 << 20;
/// What stands for standard input.
const STDIN: &str = "-";

/// Where the Dockerfile and the files of a build come from.
#[derive(Debug)]
pub(crate) struct Inputs {
    /// The Dockerfile, unless it comes with the main context.
    pub(crate) dockerfile: Option<SourceFile>,
    /// The contexts that lie on the user's disk.
    pub(crate) contexts: BTreeMap<String, ContextSpec>,
    /// What the other names mean.
    pub(crate) named: BTreeMap<String, NamedContext>,
    /// The contexts that come from elsewhere.
    pub(crate) pending: Pending,
}

/// Contexts that come from elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    contexts: Vec<(String, Elsewhere)>,
    dockerfile: Dockerfile,
}

/// Where the Dockerfile comes from.
#[derive(Debug, Default)]
enum Dockerfile {
    /// It is there already.
    #[default]
    Known,
    /// It comes with the main context, and is called like this.
    InContext(Option<PathBuf>),
    /// From a web server.
    At(String),
}

/// Where a context comes from.
#[derive(Debug)]
enum Elsewhere {
    Sent(Sent),
    Git(GitLocation),
    Http(String),
}

impl Inputs {
    /// Looks at what the user names, and reads what lies on the user's disk.
    pub(crate) fn of(args: &BuildArgs) -> Result<Self, Failure> {
        let file_is_sent = args.file.as_deref().is_some_and(is_stdin);
        if is_stdin(&args.context) && file_is_sent {
            let problem = "standard input cannot be both the Dockerfile and the build context";
            return Err(Failure::usage(problem).with_help("name a file with `--file`"));
        }
        let mut inputs = match Elsewhere::of(&args.context)? {
            Some(elsewhere) => Self::elsewhere(args, elsewhere)?,
            None if is_stdin(&args.context) => Self::sent(args)?,
            None => Self::directory(args, file_is_sent)?,
        };
        if let Some(url) = args.file.as_deref().and_then(address) {
            inputs.pending.dockerfile = Dockerfile::At(url);
        } else if inputs.dockerfile.is_some() {
            inputs.pending.dockerfile = Dockerfile::Known;
        }
        for text in &args.build_context {
            inputs.add_context(text)?;
        }
        Ok(inputs)
    }

    /// A context or a lone Dockerfile on standard input.
    fn sent(args: &BuildArgs) -> Result<Self, Failure> {
        let sent = Sent::read(stdin()?, TEXT_LIMIT)
            .map_err(|error| Failure::input(format!("standard input: {error}")))?;
        let dockerfile = match (&sent, &args.file) {
            (Sent::Archive(_), _) => None,
            (Sent::Other(_), Some(file)) if address(file).is_some() => None,
            (Sent::Other(_), Some(file)) => Some(read_source(file)?),
            (Sent::Other(bytes), None) => Some(source("<stdin>", bytes.clone())?),
        };
        let inputs = Self::elsewhere(args, Elsewhere::Sent(sent))?;
        Ok(Self { dockerfile, ..inputs })
    }

    /// A main context that comes from elsewhere, and the Dockerfile with it or on standard input.
    fn elsewhere(args: &BuildArgs, elsewhere: Elsewhere) -> Result<Self, Failure> {
        let file = args.file.clone();
        let dockerfile = file.as_deref().filter(|file| is_stdin(file)).map(|_| sent_dockerfile());
        let contexts = vec![(MAIN.to_owned(), elsewhere)];
        Ok(Self {
            dockerfile: dockerfile.transpose()?,
            contexts: BTreeMap::new(),
            named: BTreeMap::new(),
            pending: Pending { contexts, dockerfile: Dockerfile::InContext(file) },
        })
    }

    fn directory(args: &BuildArgs, file_is_sent: bool) -> Result<Self, Failure> {
        if !args.context.is_dir() {
            let path = args.context.display();
            return Err(Failure::input(format!("the build context `{path}` is not a directory")));
        }
        let (dockerfile, ignore) = if file_is_sent {
            (Some(sent_dockerfile()?), ignore_file(None, &args.context)?)
        } else if args.file.as_deref().and_then(address).is_some() {
            (None, ignore_file(None, &args.context)?)
        } else {
            let path = dockerfile_path(args)?;
            (Some(read_source(&path)?), ignore_file(Some(&path), &args.context)?)
        };
        let directory = args.context.clone();
        let main = ContextSpec { directory, ignore, stands_for: None };
        Ok(Self {
            dockerfile,
            contexts: BTreeMap::from([(MAIN.to_owned(), main)]),
            named: BTreeMap::new(),
            pending: Pending::default(),
        })
    }

    /// Adds a named context.
    fn add_context(&mut self, text: &str) -> Result<(), Failure> {
        let Some((name, value)) = text.split_once('=') else {
            return Err(Failure::usage(format!("`--build-context {text}` is not NAME=SOURCE")));
        };
        let is_image = ["docker-image://", "oci-layout://", "docker-archive:", "oci-archive:"]
            .iter()
            .any(|transport| value.starts_with(transport));
        let context = if is_image {
            let location = value.parse::<ImageLocation>();
            NamedContext::Image(absolute(
                location.map_err(|error| {
                    Failure::usage(format!("`--build-context {text}`: {error}"))
                })?,
            )?)
        } else if let Some(elsewhere) = Elsewhere::of(Path::new(value))? {
            self.pending.contexts.push((name.to_owned(), elsewhere));
            NamedContext::Directory
        } else {
            let directory = PathBuf::from(value);
            if !directory.is_dir() {
                return Err(Failure::input(format!("`--build-context {text}`: no such directory")));
            }
            let ignore = ignore_file(None, &directory)?;
            let context = ContextSpec { directory, ignore, stands_for: None };
            self.contexts.insert(name.to_owned(), context);
            NamedContext::Directory
        };
        self.named.insert(name.to_owned(), context);
        Ok(())
    }
}

impl Pending {
    /// Puts the contexts into the store, and completes a request with them. They are good as long
    /// as what is returned is held.
    ///
    /// As with BuildKit, no ignore file counts in a context that comes from elsewhere: whoever
    /// sent it has already chosen.
    pub(crate) fn complete(
        self,
        host: &Host,
        request: &mut BuildRequest,
        events: &Arc<dyn EventSink>,
        cancel: &Cancel,
    ) -> Result<Vec<FetchedContext>, Failure> {
        if let Dockerfile::At(url) = &self.dockerfile {
            request.dockerfile = fetched_dockerfile(host, request, url, events, cancel)?;
        }
        let mut held = Vec::new();
        for (name, elsewhere) in self.contexts {
            let stands_for = elsewhere.name();
            let (context, lone) = elsewhere.keep(host, request, events, cancel)?;
            match (lone, &self.dockerfile) {
                (Some(lone), _) if name != MAIN => {
                    let problem = format!("the context `{name}` is no archive: {}", lone.name());
                    return Err(Failure::input(problem));
                }
                (Some(lone), Dockerfile::InContext(_)) => request.dockerfile = lone,
                (None, Dockerfile::InContext(file)) if name == MAIN => {
                    request.dockerfile = dockerfile_of(&context, file.as_deref())?;
                }
                _ => {}
            }
            if name == MAIN && matches!(self.dockerfile, Dockerfile::InContext(_)) {
                request.dockerfile_from = context.material().cloned();
            }
            request.materials.extend(context.material().cloned());
            let directory = context.directory().to_owned();
            let spec = ContextSpec { directory, ignore: None, stands_for: Some(stands_for) };
            request.contexts.insert(name, spec);
            held.push(context);
        }
        Ok(held)
    }

    /// Whether a context comes by way of SSH.
    pub(crate) fn needs_ssh(&self) -> bool {
        self.contexts.iter().any(|(_, elsewhere)| match elsewhere {
            Elsewhere::Git(location) => {
                let url = &location.source.url;
                url.starts_with("ssh://") || !url.contains("://")
            }
            Elsewhere::Sent(_) | Elsewhere::Http(_) => false,
        })
    }
}

impl Elsewhere {
    /// What a text is the address of; a directory of that name goes first.
    fn of(text: &Path) -> Result<Option<Self>, Failure> {
        if text.is_dir() {
            return Ok(None);
        }
        Ok(repository(text)?.map(Self::Git).or_else(|| address(text).map(Self::Http)))
    }

    /// What the user calls it.
    fn name(&self) -> String {
        match self {
            Self::Sent(_) => "standard input".to_owned(),
            Self::Git(location) => without_secrets(&location.source.url),
            Self::Http(url) => without_secrets(url),
        }
    }

    /// Puts the context into the store. What a web server has may be a lone Dockerfile, whose
    /// context has no files.
    fn keep(
        self,
        host: &Host,
        request: &BuildRequest,
        events: &Arc<dyn EventSink>,
        cancel: &Cancel,
    ) -> Result<(FetchedContext, Option<SourceFile>), Failure> {
        let name = self.name();
        let (sent, material) = match self {
            Self::Git(mut location) => {
                location.source.keep_git_dir |= keeps_git_dir(request);
                let context = FetchedContext::git(host, request, &location, events, cancel)?;
                return Ok((context, None));
            }
            Self::Sent(sent) => (sent, None),
            Self::Http(url) => {
                let fetched = Sent::fetch(host, request, &url, TEXT_LIMIT, events, cancel)?;
                (fetched.0, Some(fetched.1))
            }
        };
        let (context, lone) = match sent {
            Sent::Archive(archive) => {
                (FetchedContext::unpack(host, archive, &name, events, cancel)?, None)
            }
            Sent::Other(bytes) => {
                let lone = material.is_some().then(|| source(&name, bytes)).transpose()?;
                (FetchedContext::empty(host)?, lone)
            }
        };
        match material {
            Some(material) => Ok((context.made_of(material), lone)),
            None => Ok((context, lone)),
        }
    }
}

/// Whether the user wants `.git` in contexts, by the argument that BuildKit has for it.
fn keeps_git_dir(request: &BuildRequest) -> bool {
    let value = request.options.build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR");
    value.is_some_and(|value| matches!(value.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True"))
}

/// The Dockerfile that a web server has.
fn fetched_dockerfile(
    host: &Host,
    request: &mut BuildRequest,
    url: &str,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<SourceFile, Failure> {
    let name = without_secrets(url);
    let (sent, material) = Sent::fetch(host, request, url, TEXT_LIMIT, events, cancel)?;
    match sent {
        Sent::Other(bytes) => {
            request.materials.push(material.clone());
            request.dockerfile_from = Some(material);
            source(&name, bytes)
        }
        Sent::Archive(_) => {
            Err(Failure::input(format!("`{name}` is an archive and no Dockerfile"))
                .with_help("give its address as the build context"))
        }
    }
}

/// The address of a file of a web server.
fn address(text: &Path) -> Option<String> {
    text.to_str().filter(|text| is_http(text)).map(str::to_owned)
}

/// The repository that a text is the address of.
fn repository(text: &Path) -> Result<Option<GitLocation>, Failure> {
    let Some(text) = text.to_str() else { return Ok(None) };
    let end = text.find(['#', '?']).unwrap_or(text.len());
    let (path, rest) = text.split_at(end);
    let full = match path.starts_with("github.com/") {
        true => format!("https://{}.git{rest}", path.trim_end_matches(".git")),
        false => text.to_owned(),
    };
    git_location(&full).transpose().map_err(|problem| {
        Failure::usage(format!("`{text}` is no usable address of a git repository: {problem}"))
    })
}

/// The Dockerfile on standard input.
fn sent_dockerfile() -> Result<SourceFile, Failure> {
    let mut bytes = Vec::new();
    stdin()?.take(TEXT_LIMIT).read_to_end(&mut bytes).map_err(Failure::machine)?;
    source("<stdin>", bytes)
}

/// The Dockerfile of a context that comes from elsewhere.
fn dockerfile_of(context: &FetchedContext, file: Option<&Path>) -> Result<SourceFile, Failure> {
    let given = file.map(|file| file.to_string_lossy().into_owned());
    let names = given.map_or(DOCKERFILES.map(str::to_owned).to_vec(), |name| vec![name]);
    for name in &names {
        if let Some(bytes) = context.read(name, TEXT_LIMIT)? {
            return source(name, bytes);
        }
    }
    let message = format!("there is no `{}` in the build context", names[0]);
    Err(Failure::input(message).with_help("name the file with `--file`, as a path in the context"))
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == STDIN
}

/// Standard input, unless somebody would have to type it.
fn stdin() -> Result<std::io::Stdin, Failure> {
    let stdin = std::io::stdin();
    match stdin.is_terminal() {
        true => Err(Failure::usage("standard input is a terminal: nothing can be read from it")
            .with_help("send a file: `formwork build - < Dockerfile`")),
        false => Ok(stdin),
    }
}

fn dockerfile_path(args: &BuildArgs) -> Result<PathBuf, Failure> {
    if let Some(file) = &args.file {
        return Ok(file.clone());
    }
    dockerfile_in(&args.context).ok_or_else(|| {
        let path = args.context.display();
        Failure::input(format!("there is no Dockerfile in `{path}`"))
            .with_help("name the file with `--file`")
    })
}

/// The Dockerfile in a directory.
pub(crate) fn dockerfile_in(directory: &Path) -> Option<PathBuf> {
    DOCKERFILES.map(|name| directory.join(name)).into_iter().find(|path| path.is_file())
}

fn read_source(path: &Path) -> Result<SourceFile, Failure> {
    let size = fs_err::metadata(path).map_err(Failure::input)?.len();
    if size > TEXT_LIMIT {
        let path = path.display();
        return Err(Failure::input(format!("`{path}` is too large to be a Dockerfile")));
    }
    let bytes = fs_err::read(path).map_err(Failure::input)?;
    source(&path.strip_prefix("./").unwrap_or(path).display().to_string(), bytes)
}

fn source(name: &str, bytes: Vec<u8>) -> Result<SourceFile, Failure> {
    match String::from_utf8(bytes) {
        Ok(text) => Ok(SourceFile::new(name, text)),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            Err(Failure::input(format!("`{name}` is not UTF-8 text (byte {at})")))
        }
    }
}

/// `NAME.dockerignore` beside the Dockerfile, else `.dockerignore` in the context.
pub(crate) fn ignore_file(
    dockerfile: Option<&Path>,
    context: &Path,
) -> Result<Option<SourceFile>, Failure> {
    let own = dockerfile.map(|dockerfile| {
        let mut own = dockerfile.as_os_str().to_owned();
        own.push(".dockerignore");
        PathBuf::from(own)
    });
    let mut candidates = own.into_iter().chain([context.join(".dockerignore")]);
    candidates.find(|path| path.is_file()).map(|path| read_source(&path)).transpose()
}

/// Paths on the command line start where the user is.
fn absolute(location: ImageLocation) -> Result<ImageLocation, Failure> {
    let absolute = |path: String| {
        let path = std::path::absolute(path).map_err(Failure::machine)?;
        Ok::<_, Failure>(path.to_string_lossy().into_owned())
    };
    Ok(match location {
        ImageLocation::OciLayout { path, selector } => {
            ImageLocation::OciLayout { path: absolute(path)?, selector }
        }
        ImageLocation::DockerArchive { path, selector } => {
            ImageLocation::DockerArchive { path: absolute(path)?, selector }
        }
        named @ ImageLocation::Named(_) => named,
    })
}
