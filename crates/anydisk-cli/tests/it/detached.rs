//! LUKS containers whose header is a file of its own, made and opened by the tool.

use anydisk_testkit::golden::cases;
use serde_json::Value;

use crate::common::{Bench, Qemu};

/// The payload with its header.
const NODE: &str = "driver=luks,key-secret=s,file.filename=payload,header.filename=header";

/// Words behind a command and its secret.
fn with_secret<'a>(command: &'a str, words: &[&'a str]) -> Vec<&'a str> {
    [&[command, "--object", "secret,id=s,data=abc"][..], words].concat()
}

/// A header, and a payload that holds the disk `data`.
fn made(bench: &Bench, options: &str) {
    bench.raw("data", 1 << 20, &[(0, &[7; 5000]), (700_000, &[9; 100_000])]);
    bench.raw("payload", 1 << 20, &[]);
    let options = format!("key-secret=s,iter-time=10,detached-header=on{options}");
    bench.prints(&with_secret("create", &["-q", "-f", "luks", "-o", &options, "header"]));
    let line = ["-q", "-n", "--target-image-opts", "-f", "raw", "data", NODE];
    bench.prints(&with_secret("convert", &line));
}

fn read(bench: &Bench, name: &str) -> Vec<u8> {
    std::fs::read(bench.path(name)).expect("a file")
}

#[test]
fn a_header_in_a_file_of_its_own_is_made_and_its_payload_written_and_read() {
    for options in ["", ",luks-version=2,sector-size=4096", ",cipher-alg=aes-128"] {
        let bench = Bench::new();
        made(&bench, options);
        assert_eq!(read(&bench, "payload").len(), 1 << 20, "{options}");
        assert!(read(&bench, "payload") != read(&bench, "data"), "{options}");
        bench.prints(&with_secret("convert", &["-q", "--image-opts", NODE, "plain"]));
        assert!(read(&bench, "plain") == read(&bench, "data"), "{options}");
        let line = ["--output=json", "--image-opts", NODE];
        let info: Value = serde_json::from_str(&bench.prints(&with_secret("info", &line))).unwrap();
        assert_eq!(info["virtual-size"], 1 << 20, "{options}");
        assert_eq!(info["format-specific"]["data"]["detached-header"], true, "{options}: {info}");
    }
}

#[test]
fn qemu_reads_what_is_made_here() {
    let Some(_) = Qemu::find() else { return };
    let bench = Bench::new();
    made(&bench, "");
    let run = |words: &[&str]| {
        let output = bench.command("qemu-img").args(with_secret(words[0], &words[1..])).output();
        let output = output.expect("qemu-img runs");
        assert!(output.status.success(), "{words:?}: {}", crate::common::said(&output));
        String::from_utf8(output.stdout).expect("text")
    };
    run(&["convert", "-O", "raw", "--image-opts", NODE, "plain"]);
    assert!(read(&bench, "plain") == read(&bench, "data"));
    let ours = bench.prints(&with_secret("info", &["--image-opts", NODE]));
    let specific =
        |text: &str| text.split("Format specific").nth(1).expect("it is told").to_owned();
    let told = |text: &str| specific(text).lines().next_back().map(str::to_owned);
    assert_eq!(told(&ours).is_some(), told(&run(&["info", "--image-opts", NODE])).is_some());
}

#[test]
fn passphrases_are_changed_in_the_header_and_the_size_in_the_payload() {
    let bench = Bench::new();
    made(&bench, "");
    let payload = read(&bench, "payload");
    let line = [
        "--object",
        "secret,id=n,data=new",
        "-q",
        "-o",
        "state=active,new-secret=n,iter-time=10",
        "--image-opts",
        NODE,
    ];
    bench.prints(&with_secret("amend", &line));
    assert!(read(&bench, "payload") == payload);
    let other = NODE.replace("key-secret=s", "key-secret=n");
    let line = ["--object", "secret,id=n,data=new", "-q", "--image-opts", &other, "plain"];
    bench.prints(&with_secret("convert", &line));
    assert!(read(&bench, "plain") == read(&bench, "data"));
    let header = read(&bench, "header");
    bench.prints(&with_secret("resize", &["-q", "--image-opts", NODE, "2M"]));
    assert!(read(&bench, "header") == header);
    assert_eq!(read(&bench, "payload").len(), 2 << 20);
    assert!(read(&bench, "payload")[..1 << 20] == payload);
}

#[test]
fn the_golden_container_with_its_header_apart_opens_by_json() {
    let bench = Bench::new();
    let case = cases("luks").into_iter().find(|case| case.name == "luks1-detached").expect("it");
    let unpacked = case.unpack();
    let folder = unpacked.path.parent().expect("a folder");
    for (from, to) in [("luks1-detached.hdr", "header"), ("luks1-detached.data", "payload")] {
        std::fs::copy(folder.join(from), bench.path(to)).expect("copied");
    }
    let secret = case.json["secret"].as_str().expect("a passphrase");
    let object = format!("secret,id=s,data={secret}");
    let name = "json:{\"driver\": \"luks\", \"key-secret\": \"s\", \
                \"file\": {\"driver\": \"file\", \"filename\": \"payload\"}, \
                \"header\": {\"driver\": \"file\", \"filename\": \"header\"}}";
    let digest = bench.prints(&["convert", "--object", &object, "-O", "raw", name, "plain"]);
    assert!(digest.is_empty());
    assert!(
        read(&bench, "plain").len() as u64
            == std::fs::metadata(bench.path("payload")).unwrap().len()
    );
    if Qemu::find().is_some() {
        let line = ["convert", "--object", &object, "-O", "raw", name, "theirs"];
        let output = bench.command("qemu-img").args(line).output().expect("qemu-img runs");
        assert!(output.status.success(), "{}", crate::common::said(&output));
        assert!(read(&bench, "plain") == read(&bench, "theirs"));
    }
}

#[test]
fn what_a_header_apart_cannot_be_is_refused() {
    let bench = Bench::new();
    made(&bench, "");
    let options = "key-secret=s,iter-time=10,detached-header=on";
    let line = ["-q", "-f", "luks", "-o", options, "other", "1M"];
    let error = bench.fails(&with_secret("create", &line), 1);
    assert!(error.contains("no size"), "{error}");
    let line = ["-q", "-f", "raw", "-O", "luks", "-o", options, "data", "other"];
    let error = bench.fails(&with_secret("convert", &line), 1);
    assert!(error.contains("no size"), "{error}");
    assert!(!bench.path("other").exists());
    for (node, why) in [
        (NODE.replace("header.filename=header", "header.filename=none"), "No such file"),
        (NODE.replace("header.filename=header", "header.filename=payload"), ""),
        (NODE.replace("header.filename=header", "header=x"), "Cannot find device='x'"),
        (NODE.replace("driver=luks,key-secret=s", "driver=raw"), "does not support the option"),
        ("driver=luks,key-secret=s,file.filename=header".to_owned(), ""),
    ] {
        let error = bench.fails(&with_secret("convert", &["-q", "--image-opts", &node, "x"]), 1);
        assert!(error.contains(why), "{node}: {error}");
    }
    // A name inside an image has no header apart.
    let name = "json:{\"driver\": \"luks\", \"key-secret\": \"s\", \
                \"file\": {\"driver\": \"file\", \"filename\": \"payload\"}, \
                \"header\": {\"driver\": \"file\", \"filename\": \"header\"}}";
    let line = ["-q", "-u", "-f", "qcow2", "-b", name, "-F", "luks", "over", "1M"];
    bench.prints(&[&["create"][..], &line].concat());
    let error = bench.fails(&with_secret("convert", &["-q", "over", "x"]), 1);
    assert!(error.contains("no header apart"), "{error}");
}
