//! The example services: built, tested, run, asked.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::demo::contents::{Contents, look_into};
use crate::formwork::Formwork;

/// How long a service may take to answer for the first time.
const START: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Table {
    service: Vec<Service>,
}

/// One example: see `examples/services.toml`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Service {
    pub(crate) directory: String,
    pub(crate) summary: String,
    pub(crate) at_most_percent: u64,
    page: String,
    call: Call,
}

/// A call of a service's interface, and what has to come back.
#[derive(Clone, Debug, Deserialize)]
struct Call {
    method: String,
    path: String,
    body: Option<String>,
    status: u16,
    answer: String,
}

/// A service both ways.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) service: Service,
    pub(crate) single: Built,
    pub(crate) multi: Built,
}

/// One image of a service.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) unpacked: u64,
    pub(crate) packed: u64,
    pub(crate) layers: usize,
    pub(crate) contents: Contents,
}

/// The examples in their order.
pub(crate) fn read(root: &Path) -> Result<Vec<Service>> {
    let text = fs_err::read_to_string(root.join("examples/services.toml"))?;
    Ok(toml::from_str::<Table>(&text)?.service)
}

/// Builds a service both ways, runs its tests and both images.
pub(crate) fn show(
    service: &Service,
    root: &Path,
    formwork: &Formwork,
    work: &Path,
) -> Result<Row> {
    println!("\n{}: {}", service.directory, service.summary);
    let example = Example { service, root, formwork, work };
    example.build("test", "Dockerfile", Some("test"))?;
    let single = example.build_and_ask("single", "Dockerfile.single")?;
    let multi = example.build_and_ask("multi", "Dockerfile")?;
    Ok(Row { service: service.clone(), single, multi })
}

struct Example<'a> {
    service: &'a Service,
    root: &'a Path,
    formwork: &'a Formwork,
    work: &'a Path,
}

impl Example<'_> {
    fn build_and_ask(&self, kind: &str, file: &str) -> Result<Built> {
        let image = self.build(kind, file, None)?;
        self.ask(&image).with_context(|| format!("{image} does not do what it should"))?;
        let inspected = self.formwork.inspect(&image)?.context("the image is not in the store")?;
        let size = |key: &str| inspected[key].as_u64().with_context(|| format!("no {key}"));
        Ok(Built {
            unpacked: size("Size")?,
            packed: size("PackedSize")?,
            layers: inspected["Layers"].as_array().map_or(0, Vec::len),
            contents: look_into(&self.arguments(file, None), self.formwork)?,
        })
    }

    fn build(&self, kind: &str, file: &str, target: Option<&str>) -> Result<String> {
        let start = Instant::now();
        let image = format!("demo/{}:{kind}", self.service.directory);
        let mut arguments = self.arguments(file, target);
        arguments.splice(1..1, ["--progress=plain".to_owned(), "--tag".to_owned(), image.clone()]);
        let log = self.work.join(format!("{}-{kind}.log", self.service.directory));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.formwork.call(&arguments, &log)?;
        println!("  {image:20} built in {:5.1} s", start.elapsed().as_secs_f64());
        Ok(image)
    }

    fn arguments(&self, file: &str, target: Option<&str>) -> Vec<String> {
        let directory = self.root.join("examples").join(&self.service.directory);
        let mut arguments = vec![
            "build".to_owned(),
            "--file".to_owned(),
            directory.join(file).display().to_string(),
        ];
        if let Some(target) = target {
            arguments.extend(["--target".to_owned(), target.to_owned()]);
        }
        arguments.push(directory.display().to_string());
        arguments
    }

    /// Runs an image and asks it.
    fn ask(&self, image: &str) -> Result<()> {
        let port = free_port()?;
        let log = self.work.join(format!("{}.out", image.replace(['/', ':'], "-")));
        let mut command = self.formwork.command(&["run", "--env", &format!("PORT={port}"), image]);
        self.service.ask(image, &mut command, port, &log)
    }
}

impl Service {
    /// Starts a service by a command that makes it listen on a port, asks it for its page, its
    /// health and one call, and stops it.
    pub(crate) fn ask(
        &self,
        image: &str,
        command: &mut Command,
        port: u16,
        log: &Path,
    ) -> Result<()> {
        let log = fs_err::File::create(log)?.into_parts().0;
        let child = command.stdout(log.try_clone()?).stderr(log).spawn()?;
        let mut running = Running(child);
        let base = format!("http://127.0.0.1:{port}");
        let start = Instant::now();
        let page = running.first_answer(&base)?;
        let first = start.elapsed();
        if !page.contains(&self.page) {
            bail!("its page lacks {}", self.page);
        }
        curl(&[&format!("{base}/healthz")])?;
        self.call.check(&base)?;
        let stop = Instant::now();
        running.stop()?;
        println!(
            "  {image:20} answers after {:.2} s, stops within {:.2} s",
            first.as_secs_f64(),
            stop.elapsed().as_secs_f64()
        );
        Ok(())
    }
}

impl Call {
    fn check(&self, base: &str) -> Result<()> {
        let address = format!("{base}{}", self.path);
        let mut arguments = vec!["-X", &self.method, "-w", "\n%{http_code}", &address];
        if let Some(body) = &self.body {
            arguments.extend(["-H", "Content-Type: application/json", "-d", body]);
        }
        let output = Command::new("curl").args(["-s", "-m", "10"]).args(arguments).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (answer, status) = text.rsplit_once('\n').context("curl says nothing")?;
        if status != self.status.to_string() || !answer.contains(&self.answer) {
            bail!("{} {} answers {status}: {answer}", self.method, self.path);
        }
        Ok(())
    }
}

/// A container that is stopped, whatever happens.
struct Running(Child);

impl Running {
    fn first_answer(&mut self, base: &str) -> Result<String> {
        let start = Instant::now();
        loop {
            match curl(&[base]) {
                Ok(page) => return Ok(page),
                Err(error) if start.elapsed() > START => return Err(error),
                Err(_) => {}
            }
            if let Some(status) = self.0.try_wait()? {
                bail!("it ended ({status}) before it answered");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks it to end, and waits until it has.
    fn stop(&mut self) -> Result<()> {
        Command::new("kill").arg(self.0.id().to_string()).stderr(Stdio::null()).status()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

fn curl(arguments: &[&str]) -> Result<String> {
    let output = Command::new("curl").args(["-s", "-f", "-m", "10"]).args(arguments).output()?;
    if !output.status.success() {
        bail!("curl {} failed ({})", arguments.join(" "), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
