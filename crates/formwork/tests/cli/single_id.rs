//! A user namespace with a single id: what steps are told of owners, and what comes of them.

use crate::support::{Ran, Rung, Site};

/// A place on that rung with the base image.
fn site() -> Option<Site> {
    Site::on(Rung::SingleId).filter(Site::make_busybox)
}

/// Runs a script as root in the base image, and returns the lines that it prints.
fn lines(site: &Site, script: &str) -> Vec<String> {
    let dockerfile = format!("FROM busybox\nRUN <<'end'\nset -e\n{script}\nend\n");
    site.build(&["--no-cache"], &dockerfile).log().iter().map(ToString::to_string).collect()
}

#[test]
fn owners_are_told_as_they_were_given() {
    let Some(site) = site() else { return };
    let script = "cd /tmp && echo > f && mkdir d && ln -s f l && mkfifo p
chown 1000:50 f d p && chown -h 7:8 l && stat -c '%n %u:%g' f d l p
mv f g && ln g h && stat -c '%n %u:%g' g h && chown :0 h && stat -c '%u:%g %a' g
chmod 6755 g && stat -c %a g && chown 0:0 g && stat -c '%u:%g %a' g
chmod 2775 d && echo > d/f && mkdir d/d && stat -c '%n %u:%g %a' d/f d/d";
    let expected = [
        "f 1000:50",
        "d 1000:50",
        "l 7:8",
        "p 1000:50",
        "g 1000:50",
        "h 1000:50",
        "1000:0 644",
        "6755",
        "0:0 755",
        "d/f 0:50 644",
        "d/d 0:50 2755",
    ];
    assert_eq!(lines(&site, script), expected);
}

#[test]
fn owners_are_told_however_a_file_is_named() {
    let Some(site) = site() else { return };
    // The last name is nearly as long as one may be.
    let script = "mkdir -p /tmp/d/e && cd /tmp/d && echo > f && chown 1000:50 f && ln -s .. e/l
mkdir s && chown :50 s && chmod 2775 s
dots=$(yes ./ | head -n 2040 | tr -d '\\n')
for name in f ./f /tmp/d/f e/../f e/l/f //tmp//d/e/../f /tmp/d/e/l/f ${dots}f; do
    [ $(stat -c %u:%g $name) = 1000:50 ] || echo $name
done
stat -L -c %u:%g /proc/self/fd/3 3< f && (cd s && stat -c %u:%g . ./ ../s/ && stat -L -c %u:%g .)
mkdir e/l/s/1 ${dots}s/2 && echo > e/l/s/3 && echo > ${dots}s/4 && ln -s x /tmp/d/s/5 && cd s
echo > 6 && stat -c '%n %u:%g' 1 2 3 4 5 6; stat -c %n none 2> /dev/null || echo none
mv /tmp/d /tmp/moved && stat -c %u:%g ../f && rm -r /tmp/moved && stat -c %u:%g . ; echo over";
    let expected = [
        "1000:50", "0:50", "0:50", "0:50", "0:50", "1 0:50", "2 0:50", "3 0:50", "4 0:50",
        "5 0:50", "6 0:50", "none", "1000:50", "0:50", "over",
    ];
    assert_eq!(lines(&site, script), expected);
}

/// What a user of the image may not do, in a step that begins as root; all have to be refused.
const NOT_FOR_USERS: &[&str] = &[
    "echo > /new",
    "mkdir /d",
    "chown 0 /home/app/f",
    "mknod /tmp/n c 1 3",
    "cat /secret",
    "cat < /secret",
    "cp /secret /tmp/copy",
    "cat /root/x",
    "echo >> /public",
    "truncate -s 0 /public",
    "chmod 777 /secret",
    "chmod 666 /public",
    "touch -d 2000-01-01 /public",
    "touch /public",
    "rm -f /secret",
    "rm -f /sticky/f",
    "rm -rf /root/x",
    "mv /secret /tmp/secret",
    "mv /sticky/f /sticky/g",
    "mv /home/app/f /public",
    "ln /public /etc/public",
    "ln -s a /etc/a",
    "rmdir /root/d",
    "cd /root",
    "[ -r /secret ]",
    "[ -w /public ]",
    "[ -x /root ]",
    "/root/x",
    "chroot / true",
    "su -c true root < /dev/null",
];

#[test]
fn a_process_that_becomes_somebody_else_is_held_to_it() {
    let Some(site) = site() else { return };
    let attempts: String = NOT_FOR_USERS.iter().map(|attempt| format!("{attempt}\n")).collect();
    let script = format!(
        "mkdir -p /home/app /root/d /sticky && chown app:app /home/app && chmod 700 /root
echo x > /secret && chmod 600 /secret && echo x > /public && cp /bin/busybox /root/x
chmod 1777 /sticky && echo > /sticky/f && chmod 666 /sticky/f
cat > /tmp/attempts <<'attempts'
{attempts}attempts
cat > /tmp/as <<'script'
id -u && id -g && umask 027 && echo > /home/app/f && mkdir /home/app/d && ln -s f /home/app/l
stat -c '%n %u:%g %a' /home/app/f /home/app/d; stat -c '%u:%g' /home/app/l
cd /home/app && chmod 600 f && truncate -s 3 f && touch -d @946684800 f && mv f g && ln g h && rm h
stat -c '%u:%g %a %s %Y' g && cat /public && echo y >> /sticky/f && [ ! -e /root/none ] && rmdir d
while read -r attempt; do
    sh -c \"$attempt\" < /dev/null > /dev/null 2>&1 && echo did $attempt
done < /tmp/attempts
echo over
script
su -s /bin/sh app /tmp/as; id -u; cat /secret /public; stat -c %a /secret"
    );
    let expected = [
        "1000",
        "1000",
        "/home/app/f 1000:1000 640",
        "/home/app/d 1000:1000 750",
        "1000:1000",
        "1000:1000 600 3 946684800",
        "x",
        "over",
        "0",
        "x",
        "x",
        "600",
    ];
    assert_eq!(lines(&site, &script), expected);
}

#[test]
fn attributes_of_records_are_out_of_reach_and_of_no_effect_in_archives() {
    let Some(site) = site() else { return };
    // An archive that brings the attribute of a record along, which says that 9:9 owns the file.
    let value = "\u{9}\0\0\0\u{9}\0\0\0";
    let mut record = format!(" SCHILY.xattr.user.formwork={value}\n");
    record.insert_str(0, &(record.len() + 2).to_string());
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::XHeader);
    header.set_size(record.len() as u64);
    header.set_cksum();
    archive.append(&header, record.as_bytes()).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_path("file").unwrap();
    header.set_mode(0o644);
    header.set_size(0);
    header.set_cksum();
    archive.append(&header, &b""[..]).unwrap();
    site.write("a.tar", archive.into_inner().unwrap());
    let dockerfile = "FROM busybox\nADD a.tar /\nRUN stat -c %u:%g /file\n";
    assert_eq!(site.build(&[], dockerfile).log(), ["0:0"]);
}

#[test]
fn processes_that_die_while_they_ask_harm_nobody() {
    let Some(site) = site() else { return };
    let script = "cd /tmp
for round in 1 2 3 4 5 6 7 8 9 10; do
    for worker in 1 2 3 4; do
        (while :; do echo > f$worker; chown 5:6 f$worker; ls -ln / > /dev/null; done) &
    done
    sleep 0.05; kill -9 $(jobs -p); wait || true
done 2> /dev/null
echo > g; chown 3:4 g; stat -c %u:%g g";
    assert_eq!(lines(&site, script), ["3:4"]);
}

#[test]
fn a_store_with_owners_as_data_is_told_to_others_and_not_opened_by_them() {
    let Some(site) = site() else { return };
    site.build(&["-t", "app"], "FROM busybox\nRUN echo > /f && chown 3:4 /f\n");
    let as_others = |arguments: &[&str]| {
        let mut command = site.formwork(arguments);
        command.env("FORMWORK_ISOLATION", "subordinate-ids");
        command
    };
    let listed = Ran::of(&mut as_others(&["images"])).succeeded().stderr;
    assert!(listed.contains("`formwork --isolation=single-id save … | formwork load`"), "{listed}");
    let (archive, store) = (site.outside("app.tar"), site.outside("store-single-id"));
    let message = "have no owners that count here: it was made with `--isolation=single-id`";
    Ran::of(&mut as_others(&["--root", &store, "images"])).failed(4, message);
    site.run(&["--root", &store, "save", "-o", &archive, "app"]);
    Ran::of(&mut as_others(&["load", "-i", &archive])).succeeded();
    let owner = Ran::of(&mut as_others(&["run", "app", "stat", "-c", "%u:%g", "/f"])).succeeded();
    assert_eq!(owner.stdout, "3:4\n");
}
