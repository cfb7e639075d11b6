//! `anydisk salvage`.

use std::os::unix::fs::FileExt;

use anydisk::{GuestOffset, OpenDisk};
use serde_json::Value;

use crate::common::{Bench, said};

/// An image of 4 MiB full of data, whose table names a cluster behind the end of the file for the
/// bytes from 1 MiB on.
fn damaged(bench: &Bench) {
    bench.raw("whole", 4 << 20, &[(0, &[7; 4 << 20])]);
    bench.prints(&["convert", "-q", "-f", "raw", "-O", "qcow2", "whole", "broken"]);
    let file = std::fs::File::options().read(true).write(true).open(bench.path("broken"));
    let file = file.expect("it was made");
    let word = |at: u64| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at).expect("a word");
        u64::from_be_bytes(bytes)
    };
    let table = word(word(40)) & 0x00FF_FFFF_FFFF_FE00;
    let bad = 1_u64 << 63 | 1 << 40 | 512;
    file.write_all_at(&bad.to_be_bytes(), table + 16 * 8).expect("a write");
}

#[test]
fn what_can_be_read_is_copied_and_what_is_lost_is_told_with_an_exit_code() {
    let bench = Bench::new();
    damaged(&bench);
    bench.fails(&["convert", "-q", "broken", "copy"], 1);
    let text = bench.fails(&["salvage", "broken", "saved"], 3);
    assert!(text.contains("Lost 64 KiB at 0x100000: "), "{text}");
    let summary = "Of 4 MiB disk, 3.94 MiB of data were read, 0 B are zero, 64 KiB are lost.\n";
    assert!(text.starts_with(summary), "{text}");
    let mut expected = vec![7; 4 << 20];
    expected[1 << 20..][..64 << 10].fill(0);
    assert!(std::fs::read(bench.path("saved")).expect("it was made") == expected);
}

#[test]
fn the_account_is_json_if_asked_for() {
    let bench = Bench::new();
    damaged(&bench);
    let line = ["salvage", "-O", "qcow2", "--output=json", "broken", "saved"];
    let output = bench.anydisk(&line);
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((json["lost-size"].as_u64(), output.status.code()), (Some(64 << 10), Some(3)));
    assert_eq!(
        (&json["lost"][0]["start"], &json["lost"][0]["length"]),
        (&0x100000.into(), &65536.into())
    );
    assert!(said(&output).lines().all(|line| !line.starts_with("Lost")), "it is in the JSON");
    assert!(bench.prints(&["info", "saved"]).contains("file format: qcow2"));
}

#[test]
fn a_sound_image_is_copied_whole() {
    let bench = Bench::new();
    bench.raw("disk", 1 << 20, &[(5000, b"data")]);
    bench.prints(&["salvage", "-f", "raw", "-O", "vmdk", "disk", "copy"]);
    assert_eq!(bench.prints(&["compare", "-f", "raw", "disk", "copy"]), "Images are identical.\n");
}

#[test]
fn a_salvaged_copy_takes_the_options_of_a_new_image_or_refuses_them() {
    let bench = Bench::new();
    damaged(&bench);
    let line = ["salvage", "-q", "-O", "qcow2", "--object", "secret,id=s,data=abc", "broken"];
    let options = "size=8M,encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    bench.fails(&[&line[..], &["-o", options, "file:saved"]].concat(), 3);
    let info = bench.prints(&["info", "saved"]);
    assert!(info.contains("virtual size: 8 MiB") && info.contains("encrypted: yes"), "{info}");
    let backing = ["-o", "backing_file=whole,backing_fmt=raw", "over"];
    let error = bench.fails(&[&line[..], &backing].concat(), 1);
    assert!(error.contains("A backing file is not supported here"), "{error}");
}

#[test]
fn what_can_be_read_goes_to_standard_output_and_is_no_package() {
    let bench = Bench::new();
    damaged(&bench);
    let output = bench.anydisk(&["convert", "--salvage", "-O", "raw", "broken", "-"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    bench.fails(&["salvage", "-q", "broken", "saved"], 3);
    assert!(output.stdout == std::fs::read(bench.path("saved")).unwrap());
    assert!(String::from_utf8_lossy(&output.stderr).contains("error while reading offset 1048576"));
    let error = bench.fails(&["convert", "--salvage", "-O", "ova", "broken", "box.ova"], 1);
    assert!(error.contains("--salvage into a package is not supported"), "{error}");
}

/// A disk whose data is nowhere zero, with gaps, so that tables and data lie among each other.
fn with_gaps(bench: &Bench) -> Vec<u8> {
    let mut disk: Vec<u8> =
        (0..4_u32 << 20).map(|at| (at / 3 * 7 / 5).to_le_bytes()[0] | 1).collect();
    for gap in disk.chunks_mut(1 << 20).skip(1).step_by(2) {
        gap[300_000..700_000].fill(0);
    }
    bench.raw("disk", disk.len() as u64, &[(0, &disk)]);
    disk
}

/// The parts of the disk that were lost, from the account of salvaging the file `cut`; `None` if it
/// does not open.
fn lost_of(bench: &Bench, format: &str) -> Option<Vec<(usize, usize)>> {
    let output = bench.anydisk(&["salvage", "-f", format, "--output=json", "cut", "saved"]);
    if output.status.code() == Some(1) {
        return None;
    }
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let number = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
    let range =
        |one: &Value| (number(&one["start"]), number(&one["start"]) + number(&one["length"]));
    let lost: Vec<_> = json["lost"].as_array().unwrap().iter().map(range).collect();
    assert_eq!(output.status.code(), Some(if lost.is_empty() { 0 } else { 3 }));
    Some(lost)
}

#[test]
fn of_a_file_that_was_cut_off_nothing_is_taken_for_zeroes_that_lay_behind_its_end() {
    let bench = Bench::new();
    let disk = with_gaps(&bench);
    let kinds: [(&str, &[&str]); 9] = [
        ("qcow2", &["-o", "cluster_size=4k"]),
        ("qcow2", &["-o", "cluster_size=64k,extended_l2=on"]),
        ("qcow2", &["-c"]),
        ("qcow2", &["-c", "-o", "compression_type=zstd"]),
        ("qcow", &[]),
        ("qcow", &["-c"]),
        ("vdi", &[]),
        ("vmdk", &[]),
        ("cow", &[]),
    ];
    for (format, options) in kinds {
        let line = ["convert", "-q", "-W", "-f", "raw", "-O", format];
        bench.prints(&[&line[..], options, &["disk", "whole"]].concat());
        let whole = std::fs::read(bench.path("whole")).unwrap();
        let mut opened = 0;
        for part in 1..8 {
            let cut = whole.len() * part / 8 + part * 321;
            std::fs::write(bench.path("cut"), &whole[..cut]).unwrap();
            let Some(lost) = lost_of(&bench, format) else { continue };
            let saved = std::fs::read(bench.path("saved")).unwrap();
            let is_lost = |at: usize| lost.iter().any(|(start, end)| (*start..*end).contains(&at));
            let silent =
                (0..disk.len()).filter(|at| disk[*at] != saved[*at] && !is_lost(*at)).count();
            assert_eq!(silent, 0, "{format} {options:?} cut at {cut}");
            let held = saved.iter().filter(|byte| **byte != 0).count();
            assert!(
                options == ["-c"] || held + (3 << 20) > cut,
                "{format} {options:?} cut at {cut}: {held}"
            );
            opened += 1;
        }
        assert!(opened >= 6, "{format} {options:?}: {opened}");
    }
}

/// What `salvage --output=json` tells of `source`, which has lost something, and the copy.
fn account_of(bench: &Bench, line: &[&str]) -> (Value, Vec<u8>) {
    let output = bench.anydisk(&[&["salvage", "--output=json"], line, &["saved"]].concat());
    assert_eq!(output.status.code(), Some(3), "{line:?}: {}", said(&output));
    let json = serde_json::from_slice(&output.stdout).expect("JSON");
    (json, std::fs::read(bench.path("saved")).expect("a copy"))
}

/// The parts that an account calls lost, as start and length.
fn parts(json: &Value) -> Vec<(u64, u64)> {
    let number = |value: &Value| value.as_u64().expect("a number");
    let lost = json["lost"].as_array().expect("a list");
    lost.iter().map(|one| (number(&one["start"]), number(&one["length"]))).collect()
}

/// An overlay of 4 MiB that holds the third MiB itself, and an image below that is missing.
fn orphan(bench: &Bench, format: &str) {
    let base = &format!("base.{format}"); // A VDI's parent is sought among files called so.
    bench.raw("disk", 4 << 20, &[(0, &[1; 4 << 20])]);
    bench.prints(&["convert", "-q", "-f", "raw", "-O", format, "disk", base]);
    bench.prints(&["create", "-q", "-f", format, "-b", base, "-F", format, "top"]);
    let disk = OpenDisk::new().write(true).path(bench.path("top")).expect("it opens");
    disk.write(GuestOffset(2 << 20), &[7; 1 << 20]).expect("written");
    disk.flush().expect("flushed");
    std::fs::remove_file(bench.path(base)).expect("it was there");
}

#[test]
fn of_an_overlay_whose_image_below_is_missing_all_that_is_above_it_is_copied_in_each_format() {
    for format in ["qcow2", "qcow", "vmdk", "vdi", "vhd", "cow"] {
        let bench = Bench::new();
        orphan(&bench, format);
        bench.fails(&["convert", "-q", "-O", "raw", "top", "copy"], 1);
        for line in [&["top"][..], &["--untrusted", "top"], &["-f", format, "top"]] {
            let (json, saved) = account_of(&bench, line);
            let size = json["virtual-size"].as_u64().expect("a size");
            let mut expected = vec![0; saved.len()];
            expected[2 << 20..3 << 20].fill(7);
            assert!(saved == expected, "{format} {line:?}");
            let lost = [(0, 2 << 20), (3 << 20, size - (3 << 20))];
            assert_eq!(parts(&json), lost, "{format} {line:?}");
            assert_eq!(json["data-size"], 1 << 20, "{format} {line:?}");
            let why = json["lost"][0]["why"].as_str().expect("a reason");
            assert!(why.contains("cannot open: "), "{format} {line:?}: {why}");
        }
    }
}

#[test]
fn an_image_below_that_is_no_image_or_the_wrong_one_is_as_good_as_missing_and_is_told() {
    let bench = Bench::new();
    orphan(&bench, "qcow2");
    std::fs::write(bench.path("base.qcow2"), b"QFI\xfb, and nothing behind it").expect("a file");
    let (json, _) = account_of(&bench, &["top"]);
    assert_eq!(parts(&json), [(0, 2 << 20), (3 << 20, 1 << 20)]);
    // Two links of a chain that comes back to itself.
    std::fs::rename(bench.path("top"), bench.path("base.qcow2")).expect("renamed");
    let (json, saved) = account_of(&bench, &["base.qcow2"]);
    assert!(saved[2 << 20..3 << 20].iter().all(|byte| *byte == 7));
    let why = json["lost"][0]["why"].as_str().expect("a reason");
    assert!(why.contains("comes back to"), "{why}");
    // An image that the command line names below another.
    let name = "json:{\"driver\": \"qcow2\", \"file\": {\"filename\": \"base.qcow2\"}, \
                \"backing\": {\"driver\": \"qcow2\", \"file\": {\"filename\": \"none\"}}}";
    let (json, _) = account_of(&bench, &[name]);
    assert_eq!(parts(&json), [(0, 2 << 20), (3 << 20, 1 << 20)]);
}

#[test]
fn a_vmdk_whose_parent_has_changed_shows_what_it_has_itself_and_the_parent_where_that_is_said() {
    let bench = Bench::new();
    bench.raw("disk", 4 << 20, &[(0, &[1; 4 << 20])]);
    bench.prints(&["convert", "-q", "-f", "raw", "-O", "vmdk", "disk", "base"]);
    bench.prints(&["create", "-q", "-f", "vmdk", "-b", "base", "-F", "vmdk", "top"]);
    for (name, byte) in [("top", 7), ("base", 9)] {
        let disk = OpenDisk::new().write(true).path(bench.path(name)).expect("it opens");
        disk.write(GuestOffset(2 << 20), &[byte; 1 << 20]).expect("written");
        disk.flush().expect("flushed");
    }
    let (json, _) = account_of(&bench, &["top"]);
    assert_eq!(parts(&json), [(0, 2 << 20), (3 << 20, 1 << 20)]);
    let why = json["lost"][0]["why"].as_str().expect("a reason");
    assert!(why.contains("its content ID is"), "{why}");
    let name = "json:{\"driver\": \"vmdk\", \"file\": {\"filename\": \"top\"}, \
                \"backing\": {\"driver\": \"vmdk\", \"file\": {\"filename\": \"base\"}}}";
    bench.prints(&["salvage", name, "saved"]);
    let saved = std::fs::read(bench.path("saved")).expect("a copy");
    assert!(saved[..2 << 20].iter().all(|byte| *byte == 1));
}

#[test]
fn of_a_chain_whose_middle_is_missing_the_links_above_it_are_copied() {
    let bench = Bench::new();
    bench.raw("bottom", 4 << 20, &[(0, &[1; 4 << 20])]);
    bench.prints(&["create", "-q", "-f", "qcow2", "-b", "bottom", "-F", "raw", "middle"]);
    bench.prints(&["create", "-q", "-f", "qcow2", "-b", "middle", "-F", "qcow2", "upper"]);
    bench.prints(&["create", "-q", "-f", "qcow2", "-b", "upper", "-F", "qcow2", "top"]);
    for (name, at) in [("upper", 1), ("top", 2)] {
        let disk = OpenDisk::new().write(true).path(bench.path(name)).expect("it opens");
        disk.write(GuestOffset(at << 20), &[7; 1 << 20]).expect("written");
        disk.flush().expect("flushed");
    }
    std::fs::remove_file(bench.path("middle")).expect("it was there");
    let (json, saved) = account_of(&bench, &["top"]);
    assert_eq!(parts(&json), [(0, 1 << 20), (3 << 20, 1 << 20)]);
    assert!(saved[1 << 20..3 << 20].iter().all(|byte| *byte == 7));
}

#[test]
fn where_nothing_of_the_missing_image_below_is_needed_nothing_is_lost() {
    let bench = Bench::new();
    orphan(&bench, "qcow2");
    bench.prints(&["create", "-q", "-f", "qcow2", "base.qcow2", "4M"]);
    let disk = OpenDisk::new().write(true).path(bench.path("top")).expect("it opens");
    disk.write(GuestOffset(0), &[7; 4 << 20]).expect("written");
    disk.flush().expect("flushed");
    drop(disk);
    std::fs::remove_file(bench.path("base.qcow2")).expect("it was there");
    bench.prints(&["salvage", "top", "saved"]);
    assert!(std::fs::read(bench.path("saved")).expect("a copy") == [7; 4 << 20]);
}

#[test]
fn of_an_image_whose_data_file_is_missing_what_its_tables_hold_is_told_and_zeroes_are_kept() {
    let bench = Bench::new();
    bench.raw("disk", 4 << 20, &[(1 << 20, &[1; 1 << 20])]);
    let line = ["convert", "-q", "-f", "raw", "-O", "qcow2", "-o", "data_file=data"];
    bench.prints(&[&line[..], &["disk", "top"]].concat());
    std::fs::remove_file(bench.path("data")).expect("it was there");
    let (json, saved) = account_of(&bench, &["top"]);
    assert_eq!(parts(&json), [(1 << 20, 1 << 20)]);
    assert!(saved == [0; 4 << 20]);
    let why = json["lost"][0]["why"].as_str().expect("a reason");
    assert!(why.contains("data: cannot open: No such file"), "{why}");
}

#[test]
fn of_a_split_vmdk_the_extents_that_are_there_are_copied() {
    for subformat in ["twoGbMaxExtentSparse", "twoGbMaxExtentFlat"] {
        let bench = Bench::new();
        let disk: Vec<u8> = (0..6_u8).flat_map(|part| vec![part + 1; 1 << 20]).collect();
        bench.raw("disk", 6 << 20, &[(0, &disk)]);
        let options = format!("subformat={subformat},split_size=1M");
        let line = ["convert", "-q", "-f", "raw", "-O", "vmdk", "-o", &options];
        bench.prints(&[&line[..], &["disk", "top.vmdk"]].concat());
        let letter = if subformat.ends_with("Flat") { "f" } else { "s" };
        let extent = |number: u32| bench.path(format!("top-{letter}00{number}.vmdk"));
        for number in [2, 3] {
            std::fs::remove_file(extent(number)).expect("it was there");
        }
        // One that is there, and is damaged: of a flat one the end is missing.
        let file = std::fs::File::options().write(true).open(extent(5)).expect("it is there");
        file.set_len(300).expect("cut");
        let (json, saved) = account_of(&bench, &["top.vmdk"]);
        let damaged = if letter == "f" { 300 } else { 0 };
        let rest = (1 << 20) - damaged;
        let mut expected = disk.clone();
        expected[1 << 20..3 << 20].fill(0);
        expected[4 << 20..5 << 20][damaged..].fill(0);
        let saved_rest = saved == expected
            || letter == "f" && {
                let mut loosely = expected.clone();
                loosely[4 << 20..5 << 20].fill(0);
                saved == loosely
            };
        assert!(saved_rest, "{subformat}");
        let lost = parts(&json);
        assert_eq!(lost[..2], [(1 << 20, 1 << 20), (2 << 20, 1 << 20)], "{subformat}");
        assert_eq!(lost[2].0 + lost[2].1, 5 << 20, "{subformat}");
        assert!(lost[2].1 >= rest as u64, "{subformat}: {lost:?}");
        assert_eq!(lost.len(), 3, "{subformat}");
    }
}

/// Nobody knows any more whether there was a disk below: what it may have shown is lost.
#[test]
fn of_a_vmdk_whose_descriptor_is_gone_all_that_it_does_not_hold_itself_is_lost() {
    let bench = Bench::new();
    bench.raw("data", 1 << 20, &[(0, &[7; 1 << 20])]);
    bench.prints(&["convert", "-f", "raw", "-O", "vmdk", "data", "base.vmdk"]);
    bench.prints(&["create", "-q", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", "top.vmdk"]);
    bench.prints(&[
        "bench",
        "-w",
        "--pattern",
        "9",
        "-s",
        "65536",
        "-c",
        "1",
        "-f",
        "vmdk",
        "top.vmdk",
    ]);
    let mut bytes = std::fs::read(bench.path("top.vmdk")).expect("it is there");
    bytes[512..][..20 * 512].fill(0);
    std::fs::write(bench.path("top.vmdk"), bytes).expect("written");
    let told = bench.fails(&["salvage", "-f", "vmdk", "top.vmdk", "out.raw"], 3);
    assert!(told.contains("the disk below, if there was one"), "{told}");
    let out = std::fs::read(bench.path("out.raw")).expect("it is there");
    assert!(out[..1 << 16].iter().all(|byte| *byte == 9) && out.len() == 1 << 20);
}

#[test]
fn an_image_below_that_is_read_as_raw_by_a_guess_is_told() {
    let bench = Bench::new();
    bench.raw("data", 1 << 20, &[(0, &[7; 1 << 20])]);
    bench.prints(&["convert", "-f", "raw", "-O", "qcow", "data", "base.qcow"]);
    bench.prints(&["create", "-q", "-f", "qcow", "-b", "base.qcow", "-F", "qcow", "top.qcow"]);
    let mut bytes = std::fs::read(bench.path("base.qcow")).expect("it is there");
    bytes[..100].fill(0);
    std::fs::write(bench.path("base.qcow"), bytes).expect("written");
    let output = bench.anydisk(&["salvage", "-f", "qcow", "top.qcow", "out.raw"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("base.qcow, an image below, is in no known format"), "{told}");
}
