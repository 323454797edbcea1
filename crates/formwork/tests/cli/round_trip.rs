//! Images through every output and back: what comes back is what went.

use formwork_testing::Registry;
use serde_json::Value;

use crate::support::{Ran, Site, Tree};

/// Several layers with all that a layer can hold.
const DOCKERFILE: &str = "\
FROM busybox AS files
RUN mkdir -p /f/d /f/gone && cd /f && echo one > file && ln file hard && ln -s file soft \
    && mkfifo pipe && dd if=/dev/zero of=sparse bs=1 count=1 seek=3000000 2>&1 \
    && chown 7:8 d && chmod 2755 d && touch gone/x && chmod 4711 file && touch 'od d name'
FROM busybox
COPY --from=files /f /f
RUN rm -r /f/gone && rm /etc/group && rm -r /root && mkdir /root && echo new > /root/new
ENV A=1
LABEL l=\"a b\"
VOLUME /data
EXPOSE 80
USER 7
WORKDIR /f/d
HEALTHCHECK CMD true
CMD [\"sh\", \"-c\", \"echo $A\"]
";

/// What has to come back: the configuration, its digest, the layers and the files.
fn seen(site: &Site, store: &str, name: &str) -> (Value, Vec<String>) {
    let call = |arguments: &[&str]| {
        let mut command = site.formwork(arguments);
        Ran::of(command.env("FORMWORK_ROOT", store)).succeeded().stdout
    };
    let images: Value = serde_json::from_str(&call(&["inspect", name])).unwrap();
    let keys = ["Id", "Created", "Config", "RootFS", "History", "Architecture", "Os"];
    let facts = keys.map(|key| images[0][key].clone());
    let archive = site.outside("export.tar");
    call(&["export", "-o", &archive, name]);
    (Value::from(facts.to_vec()), Tree::from_archive(archive.as_ref()).lines())
}

#[test]
fn an_image_comes_back_from_every_output_as_it_went() {
    let site = &Site::new();
    if !site.make_busybox() {
        return;
    }
    let registry = Registry::start();
    let at = |name: &str| site.outside(name);
    let mut outputs = vec!["type=image".to_owned()];
    let mut places = Vec::new();
    for compression in ["gzip", "zstd", "uncompressed"] {
        for (kind, tar) in [("oci", true), ("oci", false), ("docker", true), ("docker", false)] {
            // Docker's media types have none for zstd.
            if kind == "docker" && compression == "zstd" {
                continue;
            }
            let place = at(&format!("{kind}-{tar}-{compression}"));
            let attributes = format!("dest={place},tar={tar},compression={compression}");
            outputs.push(format!("type={kind},{attributes}"));
            places.push(place);
        }
        if let (Some(registry), true) = (&registry, compression != "uncompressed") {
            let name = format!("{}/app:{compression}", registry.host());
            outputs.push(format!("type=registry,name={name},compression={compression}"));
        }
    }
    let mut arguments = vec!["-t", "app:1"];
    outputs.iter().for_each(|output| arguments.extend(["-o", output]));
    let built = site.build(&arguments, DOCKERFILE);
    // One solve, however many outputs.
    let ran = built.steps.iter().filter(|step| step.name.contains("mkfifo")).count();
    assert_eq!(ran, 1);
    let store = site.store().to_str().unwrap().to_owned();
    let expected = seen(site, &store, "app:1");
    assert!(expected.1.iter().any(|line| line.contains("/f/sparse")), "{:?}", expected.1);
    let check = |number: usize, what: &str, arguments: &[&str], name: &str| {
        let other = at(&format!("store-{number}"));
        let mut call = site.formwork(arguments);
        Ran::of(call.env("FORMWORK_ROOT", &other)).succeeded();
        let found = seen(site, &other, name);
        assert!(found == expected, "{what}: {found:#?}\ninstead of {expected:#?}");
        formwork_testing::remove_all(other.as_ref());
    };
    for (number, place) in places.iter().enumerate() {
        check(number, place, &["load", "-q", "-i", place], "app:1");
    }
    for format in ["docker-archive", "oci-archive", "oci-dir"] {
        let saved = at(&format!("saved-{format}"));
        site.run(&["save", "--format", format, "-o", &saved, "app:1"]);
        check(50, &saved, &["load", "-q", "-i", &saved], "app:1");
    }
    if let Some(registry) = &registry {
        for compression in ["gzip", "zstd"] {
            let name = format!("{}/app:{compression}", registry.host());
            check(60, &name, &["pull", "-q", &name], &name);
        }
        let name = format!("{}/copied:1", registry.host());
        let oci = format!("oci-archive:{}", at("oci-true-zstd"));
        site.run(&["copy", "-q", &oci, &name]);
        check(61, &name, &["pull", "-q", &name], &name);
    }
}
