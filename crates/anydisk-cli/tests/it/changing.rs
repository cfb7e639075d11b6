//! `resize`, `snapshot`, `commit`, `rebase`: the words and codes of qemu-img, and what it reads
//! afterwards.

use std::process::Output;

use crate::common::{Bench, Qemu, said};

/// Runs both programs, each in a folder that `prepare` made, and fails unless they say the same
/// and end with the same code. Returns the folder in which anydisk ran.
fn both(prepare: impl Fn(&Bench), line: &[&str]) -> Bench {
    let (ours, theirs) = (Bench::new(), Bench::new());
    for bench in [&ours, &theirs] {
        prepare(bench);
    }
    let found = ours.anydisk(line);
    let wanted = theirs.command("qemu-img").args(line).output().expect("qemu-img");
    let text = |output: &Output| {
        said(output).replace("qemu-img:", "anydisk:").replace("'qemu-img ", "'anydisk ")
    };
    // More may be said: what to do next.
    assert!(text(&found).starts_with(&text(&wanted)), "{line:?}: {}", said(&found));
    assert_eq!(found.status.code(), wanted.status.code(), "{line:?}");
    ours
}

fn small(bench: &Bench) {
    bench.qemu("create -q -f qcow2 a.qcow2 1M");
}

/// A raw base, an image in the middle, one on top, with data in each.
fn chain(bench: &Bench) {
    bench.raw("base.raw", 1 << 20, &[(0, b"base"), (300_000, b"base")]);
    bench.qemu("create -q -f qcow2 -b base.raw -F raw middle.qcow2 1M");
    bench.qemu("create -q -f qcow2 -b middle.qcow2 -F qcow2 top.qcow2 2M");
    let write = |file: &str, commands: &[&str]| {
        let mut io = bench.command("qemu-io");
        io.args(commands.iter().flat_map(|command| ["-c", command]));
        assert!(io.args(["-f", "qcow2", file]).output().expect("qemu-io").status.success());
    };
    write("middle.qcow2", &["write -P 1 100k 200k", "write -z 500k 64k"]);
    write("top.qcow2", &["write -P 2 200k 10k", "write -P 3 1500k 64k", "write -z 0 64k"]);
}

fn contents(bench: &Bench, file: &str) -> Vec<u8> {
    bench.qemu(&format!("convert -O raw {file} contents.raw"));
    std::fs::read(bench.path("contents.raw")).expect("it was made")
}

fn assert_sound(bench: &Bench, file: &str) {
    let qemu = Qemu::find().expect("it was there before");
    qemu.assert_undamaged(&bench.path(file), "qcow2");
}

#[test]
fn a_resize_says_what_qemus_says() {
    let Some(_) = Qemu::find() else { return };
    for line in [
        &["resize", "a.qcow2", "2M"][..],
        &["resize", "-q", "a.qcow2", "2M"],
        &["resize", "a.qcow2", "+1M"],
        &["resize", "a.qcow2", "+0"],
        &["resize", "a.qcow2", "512k"],
        &["resize", "--shrink", "a.qcow2", "512k"],
        &["resize", "--shrink", "a.qcow2", "--", "-512k"],
        &["resize", "--shrink", "a.qcow2", "--", "-5M"],
        &["resize", "a.qcow2", "xx"],
        &["resize", "--preallocation=metadata", "a.qcow2", "3M"],
        &["resize", "--preallocation=foo", "a.qcow2", "3M"],
        &["resize", "--preallocation=full", "--shrink", "a.qcow2", "512k"],
    ] {
        let bench = both(small, line);
        assert_sound(&bench, "a.qcow2");
    }
    let bench = Bench::new();
    bench.raw("a.raw", 1000, &[]);
    assert_eq!(bench.prints(&["resize", "-f", "raw", "a.raw", "2000"]), "Image resized.\n");
    assert_eq!(std::fs::metadata(bench.path("a.raw")).expect("it is there").len(), 2000);
}

#[test]
fn snapshots_are_made_listed_applied_and_deleted_in_qemus_words() {
    let Some(_) = Qemu::find() else { return };
    let kept = |bench: &Bench| {
        small(bench);
        bench.qemu("snapshot -c first a.qcow2");
        bench.qemu("snapshot -c second-with-a-name-that-is-long a.qcow2");
    };
    for line in [
        &["snapshot", "-l", "b.qcow2"][..],
        &["snapshot", "-c", "third", "a.qcow2"],
        &["snapshot", "-a", "first", "a.qcow2"],
        &["snapshot", "-a", "2", "a.qcow2"],
        &["snapshot", "-a", "nope", "a.qcow2"],
        &["snapshot", "-d", "first", "a.qcow2"],
        &["snapshot", "-d", "nope", "a.qcow2"],
        &["snapshot", "-l", "-c", "x", "a.qcow2"],
        &["convert", "-l", "nope", "-O", "raw", "a.qcow2", "x.raw"],
        &["convert", "-l", "snapshot.id=2,snapshot.name=first", "-O", "raw", "a.qcow2", "x.raw"],
        &["convert", "-l", "snapshot.id=1", "-O", "raw", "a.qcow2", "x.raw"],
    ] {
        let prepare = |bench: &Bench| {
            kept(bench);
            bench.qemu("create -q -f qcow2 b.qcow2 1M");
        };
        let bench = both(prepare, line);
        assert_sound(&bench, "a.qcow2");
    }
    let bench = Bench::new();
    kept(&bench);
    bench.prints(&["snapshot", "-c", "ours", "a.qcow2"]);
    for line in
        ["snapshot -l a.qcow2", "snapshot a.qcow2", "info a.qcow2", "info --output=json a.qcow2"]
    {
        bench.assert_same(line);
    }
    bench.assert_same("measure -O raw -l first a.qcow2");
}

/// What lies between the top and the base knows the base's content by a number, which changes.
#[test]
fn after_a_commit_past_an_image_between_all_images_open() {
    for format in ["vmdk", "vdi", "vhdx"] {
        let bench = Bench::new();
        let names = ["base", "between", "top"].map(|name| format!("{name}.{format}"));
        let [base, between, top] = names.each_ref().map(String::as_str);
        bench.prints(&["create", "-q", "-f", format, base, "1M"]);
        for (below, name, at) in [(base, between, "64k"), (between, top, "256k")] {
            bench.prints(&["create", "-q", "-f", format, "-b", below, "-F", format, name]);
            let write = ["bench", "-q", "-w", "-c", "1", "-s", "64k", "--pattern", "7", "-o", at];
            bench.prints(&[&write[..], &["-f", format, name]].concat());
        }
        let raw = |name: &str| {
            bench.prints(&["convert", "-f", format, "-O", "raw", name, "raw"]);
            std::fs::read(bench.path("raw")).expect("it was made")
        };
        let wanted = raw(top);
        bench.prints(&["commit", "-q", "-f", format, "-b", base, top]);
        assert!(raw(base) == wanted, "{format}");
        assert!(raw(top) == wanted, "{format}");
        raw(between);
    }
}

#[test]
fn a_snapshot_is_converted_without_being_applied() {
    let Some(qemu) = Qemu::find() else { return };
    let bench = Bench::new();
    small(&bench);
    let path = bench.path("a.qcow2");
    qemu.io(&path, "qcow2", &["write -P 1 0 200k"]);
    bench.prints(&["snapshot", "-c", "kept", "a.qcow2"]);
    qemu.io(&path, "qcow2", &["write -P 2 100k 300k"]);
    bench.prints(&["convert", "-l", "kept", "a.qcow2", "ours.raw"]);
    bench.qemu("convert -l kept -O raw a.qcow2 theirs.raw");
    let [ours, theirs] = ["ours.raw", "theirs.raw"].map(|name| std::fs::read(bench.path(name)));
    assert!(ours.expect("made") == theirs.expect("made"));
}

#[test]
fn a_commit_says_and_does_what_qemus_does() {
    let Some(_) = Qemu::find() else { return };
    for line in [
        &["commit", "middle.qcow2"][..],
        &["commit", "top.qcow2"],
        &["commit", "-d", "top.qcow2"],
        &["commit", "-q", "top.qcow2"],
        &["commit", "-b", "base.raw", "top.qcow2"],
        &["commit", "-b", "nope", "top.qcow2"],
    ] {
        let before = {
            let bench = Bench::new();
            chain(&bench);
            contents(&bench, "top.qcow2")
        };
        let bench = both(chain, line);
        for file in ["top.qcow2", "middle.qcow2"] {
            assert_sound(&bench, file);
        }
        if line != ["commit", "middle.qcow2"] {
            assert!(contents(&bench, "top.qcow2") == before, "{line:?}");
        }
    }
    both(small, &["commit", "a.qcow2"]);
}

#[test]
fn a_rebase_says_what_qemus_says_and_the_disk_shows_the_same() {
    let Some(_) = Qemu::find() else { return };
    for line in [
        &["rebase", "-b", "", "top.qcow2"][..],
        &["rebase", "-b", "base.raw", "-F", "raw", "top.qcow2"],
        &["rebase", "-b", "other.qcow2", "-F", "qcow2", "top.qcow2"],
        &["rebase", "-c", "-b", "other.qcow2", "-F", "qcow2", "top.qcow2"],
        &["rebase", "-b", "other.qcow2", "top.qcow2"],
    ] {
        let prepare = |bench: &Bench| {
            chain(bench);
            bench.qemu("create -q -f qcow2 other.qcow2 700k");
        };
        let before = {
            let bench = Bench::new();
            prepare(&bench);
            contents(&bench, "top.qcow2")
        };
        let bench = both(prepare, line);
        assert_sound(&bench, "top.qcow2");
        assert!(contents(&bench, "top.qcow2") == before, "{line:?}");
    }
    let bench = both(chain, &["rebase", "-u", "-b", "moved", "-F", "qcow2", "top.qcow2"]);
    assert!(bench.prints(&["info", "top.qcow2"]).contains("backing file: moved\n"));
}

/// A parent that has no name, only a number.
#[test]
fn a_split_base_gets_more_extents_when_something_longer_is_committed_into_it() {
    for kind in ["twoGbMaxExtentFlat", "twoGbMaxExtentSparse"] {
        let bench = Bench::new();
        bench.raw(
            "all.raw",
            3 << 20,
            &[(5, b"first"), (1_500_000, b"second"), (3_000_000, b"last")],
        );
        let options = format!("subformat={kind},split_size=1M");
        let run = |line: &[&str]| {
            let done = bench.anydisk(line);
            assert!(done.status.success(), "{kind}, {line:?}: {}", said(&done));
        };
        run(&["create", "-f", "vmdk", "-o", &options, "base.vmdk", "1536k"]);
        run(&["create", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", "d.vmdk", "3M"]);
        run(&["convert", "-n", "-f", "raw", "-O", "vmdk", "all.raw", "d.vmdk"]);
        run(&["commit", "d.vmdk"]);
        run(&["compare", "-f", "raw", "-F", "vmdk", "all.raw", "base.vmdk"]);
        run(&["check", "base.vmdk"]);
    }
}

#[test]
fn a_vdi_snapshot_is_committed_into_the_parent_that_its_uuid_means() {
    let bench = Bench::new();
    let data = [(300_000, &b"base"[..]), (800_000, b"base")];
    bench.raw("base.raw", 1 << 20, &data);
    bench.raw("top.raw", 1 << 20, &[(300_000, b"over"), (800_000, b"base")]);
    bench.prints(&["convert", "-f", "raw", "-O", "vdi", "base.raw", "base.vdi"]);
    bench.prints(&[
        "convert", "-f", "raw", "-O", "vdi", "-B", "base.vdi", "-F", "vdi", "top.raw", "top.vdi",
    ]);
    bench.fails(&["commit", "--untrusted", "top.vdi"], 1);
    bench.prints(&["commit", "top.vdi"]);
    let same = ["Images are identical.\n"; 2];
    for (file, expected) in ["base.vdi", "top.vdi"].into_iter().zip(same) {
        assert_eq!(bench.prints(&["compare", "-F", "raw", file, "top.raw"]), expected, "{file}");
    }
}

/// Names on the command line may be short: the folder of the machine is the one above all the same.
#[test]
fn a_commit_into_one_of_two_vdis_that_are_alike_is_refused_and_info_tells_which_is_read() {
    let bench = Bench::new();
    bench.prints(&["create", "-q", "-f", "vdi", "base.vdi", "1M"]);
    bench.prints(&["create", "-q", "-f", "vdi", "-b", "base.vdi", "-F", "vdi", "top.vdi"]);
    bench.prints(&["bench", "-q", "-w", "-c", "1", "-s", "4096", "--pattern", "7", "top.vdi"]);
    assert!(bench.prints(&["info", "top.vdi"]).contains(" (actual path: ./base.vdi)\n"));
    std::fs::copy(bench.path("base.vdi"), bench.path("aaa.vdi")).expect("a copy");
    let files = || {
        ["aaa.vdi", "base.vdi", "top.vdi"]
            .map(|name| std::fs::read(bench.path(name)).expect("it is there"))
    };
    let before = files();
    let told = bench.fails(&["commit", "top.vdi"], 1);
    assert!(told.contains("./aaa.vdi and ./base.vdi both have this ID"), "{told}");
    assert!(files() == before);
    bench.prints(&["amend", "-o", "uuid=random", "aaa.vdi"]);
    bench.prints(&["commit", "top.vdi"]);
    assert!(files()[1] != before[1]);
}

#[test]
fn a_vdi_snapshot_finds_its_parent_in_the_folder_above_from_wherever_it_is_named() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("Snapshots")).expect("a folder");
    bench.prints(&["create", "-q", "-f", "vdi", "base.vdi", "1M"]);
    let top = "Snapshots/top.vdi";
    bench.prints(&["create", "-q", "-f", "vdi", "-b", "../base.vdi", "-F", "vdi", top]);
    bench.prints(&["map", top]);
    for name in ["top.vdi", "./top.vdi"] {
        let mut command = bench.command(env!("CARGO_BIN_EXE_anydisk"));
        command.current_dir(bench.path("Snapshots")).args(["map", name]);
        let output = command.output().expect("anydisk runs");
        assert!(output.status.success(), "{name}: {output:?}");
    }
}

/// A link that is out of date is refused; renewing it by name is the way back.
#[test]
fn an_unsafe_rebase_tells_a_vmdk_link_what_its_parent_holds_now() {
    let bench = Bench::new();
    bench.raw("base.raw", 1 << 20, &[(300_000, b"base")]);
    bench.prints(&["convert", "-f", "raw", "-O", "vmdk", "base.raw", "base.vmdk"]);
    bench.prints(&["create", "-q", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", "top.vmdk"]);
    let text = std::fs::read(bench.path("base.vmdk")).expect("an image");
    let at = text.windows(5).position(|bytes| bytes == b"\nCID=").expect("a number") + 5;
    let mut changed = text;
    changed[at] = if changed[at] == b'1' { b'2' } else { b'1' };
    std::fs::write(bench.path("base.vmdk"), changed).expect("written");
    let refusal = bench.fails(&["map", "top.vmdk"], 1);
    assert!(refusal.contains("content ID"), "{refusal}");
    bench.prints(&["rebase", "-u", "-b", "base.vmdk", "-F", "vmdk", "top.vmdk"]);
    let compared = bench.prints(&["compare", "-F", "raw", "top.vmdk", "base.raw"]);
    assert_eq!(compared, "Images are identical.\n");
}

/// A VMDK of plain bytes hides all that lies below, so nothing of it can be forgotten.
#[test]
fn a_commit_of_an_image_that_cannot_be_emptied_is_refused_before_anything_is_written() {
    let bench = Bench::new();
    bench.prints(&["create", "-q", "-f", "vmdk", "base.vmdk", "1M"]);
    bench.raw("flat", 1 << 20, &[(70_000, b"data")]);
    let said = bench.prints(&["inspect", "--output=json", "base.vmdk"]);
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let id = said["content-id"].as_str().expect("it has one");
    let text = format!(
        "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID={id}\ncreateType=\"custom\"\n\
         parentFileNameHint=\"base.vmdk\"\nRW 2048 FLAT \"flat\" 0\n"
    );
    std::fs::write(bench.path("top.vmdk"), text).expect("a descriptor");
    let before = std::fs::read(bench.path("base.vmdk")).expect("an image");
    let error = bench.fails(&["commit", "top.vmdk"], 1);
    assert!(
        error.contains("not sparse is not supported") && error.contains("commit -d"),
        "{error}"
    );
    assert!(std::fs::read(bench.path("base.vmdk")).expect("an image") == before);
    bench.prints(&["commit", "-d", "top.vmdk"]);
    bench.prints(&["compare", "-f", "vmdk", "-F", "raw", "base.vmdk", "flat"]);
}

#[test]
fn a_chain_that_comes_back_to_itself_is_told_whatever_is_to_be_done() {
    let bench = Bench::new();
    bench.prints(&["create", "-q", "-f", "qcow2", "a", "1M"]);
    bench.prints(&["create", "-q", "-f", "qcow2", "-b", "a", "-F", "qcow2", "b"]);
    bench.prints(&["rebase", "-u", "-b", "b", "-F", "qcow2", "a"]);
    for line in [&["resize", "a", "2M"][..], &["snapshot", "-c", "x", "a"]] {
        let error = bench.fails(line, 1);
        assert!(error.contains("rebase -u") && !error.contains("lock"), "{error}");
    }
}
