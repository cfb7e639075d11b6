//! How images are named and unlocked: `--object`, `--image-opts`, `json:{...}`.

use crate::common::{Bench, Qemu, said};

const SECRET: &str = "secret,id=s,data=swordfish";
const WRONG: &str = "secret,id=s,data=herring";

/// A folder with a raw disk, and the same in several encryptions.
fn encrypted() -> Bench {
    let bench = Bench::new();
    bench.raw("disk", 1 << 20, &[(0, b"begin"), (70_000, b"middle")]);
    for (format, options) in [
        ("luks", "key-secret=s,iter-time=10"),
        ("qcow2", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"),
    ] {
        let name = format!("disk.{format}");
        let line = ["convert", "--object", SECRET, "-f", "raw", "-O", format, "-o", options];
        bench.prints(&[&line[..], &["disk", &name]].concat());
    }
    bench.prints(&[
        "convert",
        "--object",
        SECRET,
        "-f",
        "raw",
        "-O",
        "qcow2",
        "-o",
        "encryption=on,encrypt.key-secret=s",
        "disk",
        "legacy.qcow2",
    ]);
    bench
}

/// The encrypted images, as `--image-opts` names them.
const NAMED: &[&str] = &[
    "driver=luks,key-secret=s,file.filename=disk.luks",
    "driver=qcow2,encrypt.key-secret=s,file.filename=disk.qcow2",
    "driver=qcow2,encrypt.key-secret=s,file.driver=file,file.filename=legacy.qcow2",
];

#[test]
fn a_secret_opens_what_it_closed_for_qemu_too() {
    let bench = encrypted();
    let qemu = Qemu::find();
    for named in NAMED {
        let line = ["compare", "--object", SECRET, "--image-opts", named, "filename=disk"];
        assert_eq!(bench.prints(&line), "Images are identical.\n", "{named}");
        if qemu.is_some() && !named.contains("legacy") {
            let raw = "driver=raw,file.filename=disk";
            bench.qemu(&format!("compare --object {SECRET} --image-opts {named} {raw}"));
        }
    }
}

#[test]
fn a_passphrase_that_is_wrong_or_missing_is_told_in_qemus_words_and_never_shown() {
    let bench = encrypted();
    for named in NAMED.iter().filter(|named| !named.contains("legacy")) {
        let line = ["convert", "--object", WRONG, "--image-opts", named, "out"];
        let error = bench.fails(&line, 1);
        let why =
            format!("Could not open '{named}': Invalid password, cannot unlock any keyslot\n");
        assert!(error.contains(&why) && !error.contains("herring"), "{error}");
        let error = bench.fails(&["convert", "--image-opts", named, "out"], 1);
        assert!(error.contains("No secret with id 's'\n"), "{error}");
    }
    for (name, option) in [("disk.luks", "key-secret"), ("disk.qcow2", "encrypt.key-secret")] {
        let error = bench.fails(&["convert", name, "out"], 1);
        let why = format!("Parameter '{option}' is required for cipher\n");
        assert!(error.contains(&why), "{error}");
    }
    assert!(!bench.path("out").exists());
}

#[test]
fn an_encrypted_image_is_not_made_without_its_secret() {
    let bench = Bench::new();
    for (options, why) in [
        ("encrypt.format=luks", "Parameter 'encrypt.key-secret' is required for cipher"),
        ("encrypt.format=luks,encrypt.key-secret=x", "No secret with id 'x'"),
        ("encryption=on", "Parameter 'encrypt.key-secret' is required for cipher"),
    ] {
        let error = bench.fails(&["create", "-f", "qcow2", "-o", options, "a", "1M"], 1);
        assert!(error.contains(&format!("anydisk: a: {why}\n")), "{error}");
        assert!(!bench.path("a").exists());
    }
}

#[test]
fn a_passphrase_in_a_file_is_the_whole_file() {
    let bench = encrypted();
    std::fs::write(bench.path("pass"), "swordfish").unwrap();
    let object = "secret,id=s,file=pass";
    let line = ["compare", "--object", object, "--image-opts", NAMED[0], "filename=disk"];
    assert_eq!(bench.prints(&line), "Images are identical.\n");
    std::fs::write(bench.path("pass"), "swordfish\n").unwrap();
    bench.fails(&line, 2);
}

#[test]
fn a_passphrase_is_added_and_the_old_one_removed() {
    let bench = encrypted();
    let new = "secret,id=t,data=herring";
    let open = ["--object", SECRET, "--object", new, "--image-opts"];
    let of_qcow2 = "encrypt.state=active,encrypt.new-secret=t,encrypt.iter-time=10";
    bench.prints(&[&["amend"][..], &open, &["-o", of_qcow2, NAMED[1]]].concat());
    let named = NAMED[1].replace("=s,", "=t,");
    let compare = ["compare", "--object", new, "--image-opts", &named, "filename=disk"];
    assert_eq!(bench.prints(&compare), "Images are identical.\n");
    let add = ["-o", "state=active,new-secret=t,iter-time=10", NAMED[0]];
    bench.prints(&[&["amend"][..], &open, &add].concat());
    let remove = ["-o", "state=inactive,old-secret=s", NAMED[0]];
    bench.prints(&[&["amend"][..], &open, &remove].concat());
    bench.fails(&["convert", "--object", SECRET, "--image-opts", NAMED[0], "out"], 1);
    let named = NAMED[0].replace("=s,", "=t,");
    bench.prints(&["convert", "--object", new, "--image-opts", &named, "out"]);
    assert_eq!(
        std::fs::read(bench.path("out")).unwrap(),
        std::fs::read(bench.path("disk")).unwrap()
    );
}

/// Names that need more than the name of a file, with what the disk must hold.
const NESTED: &[&str] = &[
    "driver=raw,offset=65536,size=4608,file.filename=disk",
    "driver=raw,offset=65536,file.filename=disk",
    "driver=qcow2,file.driver=raw,file.offset=0,file.file.filename=disk.qcow2",
    "driver=qcow2,file.filename=top.qcow2,backing.driver=raw,backing.file.filename=disk",
    "file.filename=top.qcow2,backing=",
];

fn nested() -> Bench {
    let bench = Bench::new();
    bench.raw("disk", 1 << 20, &[(0, b"begin"), (70_000, b"middle")]);
    bench.prints(&["convert", "-f", "raw", "-O", "qcow2", "disk", "disk.qcow2"]);
    bench.prints(&[
        "create",
        "-q",
        "-u",
        "-f",
        "qcow2",
        "-b",
        "gone",
        "-F",
        "raw",
        "top.qcow2",
        "1M",
    ]);
    bench
}

#[test]
fn a_name_may_be_a_list_of_options_or_json() {
    let Some(_) = Qemu::find() else { return };
    let bench = nested();
    for named in NESTED {
        bench.assert_same(&format!("map --output=json --image-opts {named}"));
        let convert = |program: &str, out: &str| {
            let mut command = bench.command(program);
            let output = command.args(["convert", "--image-opts", named, out]).output().unwrap();
            assert!(output.status.success(), "{named}: {}", said(&output));
            std::fs::read(bench.path(out)).unwrap()
        };
        let found = convert(env!("CARGO_BIN_EXE_anydisk"), "mine");
        assert_eq!(found, convert("qemu-img", "qemus"), "{named}");
    }
}

#[test]
fn info_shows_a_name_as_qemu_does() {
    let Some(_) = Qemu::find() else { return };
    let bench = nested();
    for name in [
        "--image-opts driver=qcow2,file.filename=disk.qcow2",
        "--image-opts driver=raw,offset=512,size=1024,file.filename=disk",
        "--image-opts driver=raw,file.filename=disk",
        "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"raw\",\"offset\":0,\"file\":{\"driver\":\
         \"file\",\"filename\":\"disk.qcow2\"}}}",
        "json:{'driver':'qcow2','file.filename':'disk.qcow2'}",
        "json:{\"file\":{\"filename\":\"disk.qcow2\",\"driver\":\"file\"}}",
    ] {
        // A file whose length is not whole sectors is longer to qemu.
        bench.raw("disk.qcow2", 0, &[]);
        bench.qemu("convert -q -f raw -O qcow2 disk disk.qcow2");
        bench.assert_same(&format!("info {name}"));
        bench.assert_same(&format!("info --output=json {name}"));
    }
}

#[test]
fn what_a_name_lacks_is_told_in_qemus_words() {
    let Some(_) = Qemu::find() else { return };
    let bench = nested();
    for line in [
        "info --image-opts driver=qcow2",
        "info --image-opts disk",
        "info --image-opts driver=qcow2,file=disk",
        "info --image-opts driver=qcow2,file.filename=disk.qcow2,foo=1",
        "info -f raw --image-opts file.filename=disk",
        "info --image-opts driver=raw,offset=2M,file.filename=disk",
        "info --image-opts driver=raw,offset=1M,size=512,file.filename=disk",
        "info --image-opts driver=raw,size=100,file.filename=disk",
        "info json:{\"driver\":\"qcow2\"}",
        "info --object secret,id=s disk",
        "info --object secret,id=s,data=a,file=b disk",
        "info --object secret,data=a disk",
        "info --object secret,id=s,data=a,format=hex disk",
        "info --object secret,id=s,data=!!,format=base64 disk",
        "info --object secret,id=s,file=gone disk",
        "info --object secret,id=s,data=a,keyid=k disk",
    ] {
        let run = |program: &str| bench.command(program).args(line.split(' ')).output().unwrap();
        let [qemu, mine] = ["qemu-img", env!("CARGO_BIN_EXE_anydisk")].map(run);
        let mine = said(&mine).replace("anydisk: ", "qemu-img: ");
        assert_eq!(mine, said(&qemu), "{line}");
    }
}

#[test]
fn a_strangers_image_names_nothing_even_if_its_own_name_is_json() {
    let bench = nested();
    let name = "json:{\"driver\":\"qcow2\",\"file.filename\":\"top.qcow2\"}";
    let error = bench.fails(&["convert", "--untrusted", name, "out"], 1);
    assert!(error.contains("was not opened"), "{error}");
}

#[test]
fn options_may_name_the_target_too() {
    let bench = encrypted();
    bench.raw("zero", 1 << 20, &[]);
    bench.prints(&[
        "convert",
        "--object",
        SECRET,
        "-n",
        "--target-image-opts",
        "-f",
        "raw",
        "zero",
        NAMED[1],
    ]);
    let line = ["compare", "--object", SECRET, "--image-opts", NAMED[1], "filename=zero"];
    assert_eq!(bench.prints(&line), "Images are identical.\n");
}

#[test]
fn a_passphrase_out_of_a_pipe_is_read_once() {
    let bench = Bench::new();
    bench.raw("disk", 1 << 20, &[(0, b"begin")]);
    let pipe = bench.path("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    if !made.is_ok_and(|status| status.success()) {
        return eprintln!("skipped: mkfifo is missing");
    }
    let writer = std::thread::spawn(move || std::fs::write(pipe, "swordfish").unwrap());
    let line = ["convert", "--object", "secret,id=s,file=pipe", "-f", "raw", "-O", "luks"];
    bench.prints(&[&line[..], &["-o", "key-secret=s,iter-time=10", "disk", "disk.luks"]].concat());
    writer.join().unwrap();
    let line = ["compare", "--object", SECRET, "--image-opts", NAMED[0], "filename=disk"];
    assert_eq!(bench.prints(&line), "Images are identical.\n");
}

#[test]
fn names_of_options_are_bounded_and_so_is_what_they_nest() {
    let bench = Bench::new();
    bench.raw("disk", 512, &[]);
    let deep = format!("driver=raw,{}filename=disk", "file.".repeat(20_000));
    let error = bench.fails(&["info", "--image-opts", &deep], 1);
    assert!(error.contains("has 100008 bytes, expected at most 256"), "{error}");
    let members: Vec<String> = (0..1000).map(|n| format!("\"{n}\": 1")).collect();
    let wide = format!("json:{{\"{}\": {{{}}}}}", "x".repeat(60_000), members.join(","));
    let error = bench.fails(&["info", &wide], 1);
    assert!(error.contains("has 60000 bytes, expected at most 256"), "{error}");
}

#[test]
fn a_commit_goes_into_no_other_image_than_the_file_names() {
    let bench = Bench::new();
    bench.raw("base", 1 << 20, &[]);
    bench.raw("other", 1 << 20, &[]);
    bench.prints(&["create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "top"]);
    let before = std::fs::read(bench.path("base")).unwrap();
    for (backing, why) in [
        ("backing.driver=raw,backing.file.filename=other", "another image than the file names"),
        ("backing=", "does not have a backing file"),
    ] {
        let named = format!("driver=qcow2,file.filename=top,{backing}");
        let error = bench.fails(&["commit", "--image-opts", &named], 1);
        assert!(error.contains(why), "{error}");
    }
    assert!(std::fs::read(bench.path("base")).unwrap() == before);
}

#[test]
fn a_target_that_is_named_by_options_is_told_about() {
    let bench = Bench::new();
    bench.raw("disk", 1 << 20, &[(0, b"begin")]);
    bench.raw("target", 1 << 20, &[]);
    let line = ["convert", "-n", "--target-image-opts", "--output=json", "-f", "raw", "disk"];
    let text = bench.prints(&[&line[..], &["driver=raw,file.filename=target"]].concat());
    assert!(text.contains("\"virtual-size\": 1048576"), "{text}");
}

#[test]
fn an_encrypted_dmg_takes_its_passphrase_as_luks_does() {
    const IMAGE: &[u8] = include_bytes!("../../../anydisk-dmg/tests/data/encrypted-aes256.dmg");
    let bench = Bench::new();
    std::fs::write(bench.path("disk.dmg"), IMAGE).expect("a file");
    let told = bench.fails(&["info", "disk.dmg"], 1);
    assert!(told.contains("Parameter 'key-secret' is required for cipher"), "{told}");
    let secret = ["--object", "secret,id=s,data=swordfish"];
    let node = ["--image-opts", "driver=dmg,file.filename=disk.dmg,key-secret=s"];
    let told = bench.prints(&[&["info"], &secret[..], &node].concat());
    assert!(told.contains("encrypted: yes"), "{told}");
    bench.prints(&[&["convert", "-O", "raw"], &secret[..], &node, &["disk.raw"]].concat());
    let name = "json:{\"driver\":\"dmg\",\"key-secret\":\"s\",\"file\":{\"driver\":\"file\",\"filename\":\"disk.dmg\"}}";
    bench.prints(&[&["check"], &secret[..], &[name]].concat());
}
