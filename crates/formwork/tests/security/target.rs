//! What attackers are after: files of the host beside the store and the context.

use std::path::Path;
use std::process::Command;

use formwork_testing::is_root;

use crate::support::{Ran, Site};

/// What the files hold that nobody may read.
pub(crate) const SECRET: &str = "the-hosts-own-secret";

/// The word in a Dockerfile that stands for the directory with these files.
const PLACE: &str = "@HOST@";

/// Files of the host.
pub(crate) struct Target<'s> {
    site: &'s Site,
    directory: String,
}

impl<'s> Target<'s> {
    /// Puts files beside the context, which their owner may read and write.
    pub(crate) fn new(site: &'s Site) -> Self {
        let target = Self { site, directory: site.outside("host") };
        site.write("../host/file", SECRET);
        site.write("../host/empty-file", "");
        site.mkdir("../host/empty");
        target.hide_links();
        target
    }

    /// Makes links of the context that lead here.
    fn hide_links(&self) {
        let file = format!("{}/file", self.directory);
        for (link, to) in
            [("to-file", file.as_str()), ("to-host", &self.directory), ("to-root", "/")]
        {
            self.site.link(&format!("l/{link}"), to);
        }
        self.site.link("l/up", "../../../../../../../../../../../..");
    }

    /// A text with the directory put in.
    pub(crate) fn aim(&self, text: &str) -> String {
        text.replace(PLACE, &self.directory)
    }

    /// Builds a Dockerfile that aims here; whatever comes of it, nothing here is touched or told.
    /// Returns how it ended.
    #[track_caller]
    pub(crate) fn attack(&self, arguments: &[&str], dockerfile: &str) -> Ran {
        let ran = Ran::of(&mut self.site.build_command(arguments, &self.aim(dockerfile)));
        self.assert_unhurt(&ran);
        ran
    }

    /// Nothing has changed here, and a run has told nothing of it.
    #[track_caller]
    pub(crate) fn assert_unhurt(&self, ran: &Ran) {
        for text in [&ran.stdout, &ran.stderr] {
            assert!(!text.contains(SECRET), "the host's secret got out:\n{text}");
            assert!(!text.contains("panicked at"), "{text}");
        }
        // Root can look into every store.
        if is_root() {
            assert_eq!(
                holding(&self.site.store(), SECRET),
                "",
                "the host's secret is in the store"
            );
        }
        self.assert_untouched();
    }

    /// Nothing has changed here.
    #[track_caller]
    pub(crate) fn assert_untouched(&self) {
        let directory = Path::new(&self.directory);
        let mut names: Vec<_> = fs_err::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["empty", "empty-file", "file"]);
        assert_eq!(fs_err::read_to_string(directory.join("file")).unwrap(), SECRET);
        assert_eq!(fs_err::read_to_string(directory.join("empty-file")).unwrap(), "");
        assert_eq!(fs_err::read_dir(directory.join("empty")).unwrap().count(), 0);
    }
}

/// The files below a directory that hold a text.
fn holding(directory: &Path, text: &str) -> String {
    let mut grep = Command::new("grep");
    grep.args(["-rlsF", "--devices=skip", text]).arg(directory);
    String::from_utf8_lossy(&grep.output().unwrap().stdout).into_owned()
}
