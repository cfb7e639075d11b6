//! `anydisk salvage`.

use std::os::unix::fs::FileExt;

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

/// Every writer but qcow2's writes the last unit of a file whole. In qcow2 the rest of the cluster in
/// which the file ends is zero, so that a cut there cannot be told.
#[test]
fn of_a_file_that_was_cut_off_nothing_is_taken_for_zeroes_that_lay_behind_its_end() {
    let bench = Bench::new();
    let disk = with_gaps(&bench);
    let kinds: [(&str, &[&str], usize); 9] = [
        ("qcow2", &["-o", "cluster_size=4k"], 4 << 10),
        ("qcow2", &["-o", "cluster_size=64k,extended_l2=on"], 64 << 10),
        ("qcow2", &["-c"], 0),
        ("qcow2", &["-c", "-o", "compression_type=zstd"], 0),
        ("qcow", &[], 0),
        ("qcow", &["-c"], 0),
        ("vdi", &[], 0),
        ("vmdk", &[], 0),
        ("cow", &[], 0),
    ];
    for (format, options, loose) in kinds {
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
            assert!(silent <= loose, "{format} {options:?} cut at {cut}: {silent} bytes");
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
