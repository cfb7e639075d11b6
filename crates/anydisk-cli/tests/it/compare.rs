//! `anydisk compare`.

use crate::common::{Bench, Qemu};

fn bench() -> Bench {
    let bench = Bench::new();
    bench.raw("a", 1 << 20, &[(70_000, b"x")]);
    bench.raw("longer", 2 << 20, &[(70_000, b"x")]);
    bench.raw("other", 1 << 20, &[(70_000, b"y")]);
    bench.raw("more", 2 << 20, &[(70_000, b"x"), (1_500_000, b"z")]);
    bench
}

#[test]
fn words_and_exit_codes_tell_what_was_found() {
    let bench = bench();
    let found = |arguments: &[&str], code| {
        let output = bench.anydisk(&[&["compare", "-f", "raw", "-F", "raw"], arguments].concat());
        assert_eq!(output.status.code(), Some(code), "{}", crate::common::said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    const SIZES: &str = "Warning: Image size mismatch!\n";
    assert_eq!(found(&["a", "a"], 0), "Images are identical.\n");
    assert_eq!(found(&["a", "longer"], 0), format!("{SIZES}Images are identical.\n"));
    assert_eq!(found(&["a", "other"], 1), "Content mismatch at offset 69632!\n");
    assert_eq!(found(&["a", "more"], 1), format!("{SIZES}Content mismatch at offset 1499648!\n"));
    assert_eq!(found(&["-s", "a", "longer"], 1), "Strict mode: Image size mismatch!\n");
    assert_eq!(found(&["-q", "a", "other"], 1), "");
    assert_eq!(found(&["a", "missing"], 2), "");
    assert_eq!(found(&["--image-opts", "a", "a"], 2), "");
}

#[test]
fn words_and_exit_codes_are_qemus() {
    let Some(_) = Qemu::find() else { return };
    let bench = bench();
    bench.qemu("convert -f raw -O qcow2 a a.qcow2");
    bench.qemu("create -q -f qcow2 -o preallocation=metadata allocated.qcow2 1M");
    bench.qemu("create -q -f qcow2 empty.qcow2 1M");
    for files in [
        "a a",
        "a longer",
        "longer a",
        "a other",
        "a more",
        "-s a longer",
        "-q a other",
        "a missing",
        "-f qcow2 a a",
        "a a.qcow2",
        "a.qcow2 more",
        "allocated.qcow2 empty.qcow2",
        "a",
    ] {
        bench.assert_same(&format!("compare {files}"));
    }
}

#[test]
fn damage_in_a_map_and_damage_in_data_have_their_own_exit_codes() {
    let Some(_) = Qemu::find() else { return };
    let bench = bench();
    bench.qemu("convert -f raw -O qcow2 -c a packed.qcow2");
    let path = bench.path("packed.qcow2");
    let sound = std::fs::read(&path).unwrap();
    let entry = |at: usize| {
        let bytes = sound[at..at + 8].try_into().unwrap();
        usize::try_from(u64::from_be_bytes(bytes) & 0x00ff_ffff_ffff_fe00).unwrap()
    };
    let l1 = usize::try_from(u64::from_be_bytes(sound[40..48].try_into().unwrap())).unwrap();

    let mut bad_map = sound.clone();
    bad_map[l1 + 6] |= 2; // The L2 table is not at the start of a cluster.
    std::fs::write(&path, &bad_map).unwrap();
    bench.fails(&["compare", "-f", "raw", "a", "packed.qcow2"], 3);

    let mut bad_data = sound.clone();
    let l2_entry = entry(l1) + 8; // The second cluster holds the data.
    let packed = u64::from_be_bytes(sound[l2_entry..l2_entry + 8].try_into().unwrap());
    let packed = usize::try_from(packed & ((1 << 54) - 1)).unwrap();
    bad_data[packed..packed + 16].fill(0xff);
    std::fs::write(&path, &bad_data).unwrap();
    bench.fails(&["compare", "-f", "raw", "a", "packed.qcow2"], 4);
}

#[test]
fn the_answer_is_json_if_asked_for() {
    let bench = Bench::new();
    bench.raw("a", 1 << 20, &[(70_000, b"x")]);
    bench.raw("b", 2 << 20, &[]);
    let compare = |line: &[&str]| {
        let line = [&["compare", "--output=json", "-f", "raw", "-F", "raw"], line].concat();
        let output = bench.anydisk(&line);
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        (json, output.status.code())
    };
    let (json, code) = compare(&["a", "b"]);
    assert_eq!(
        (&json["differs"], &json["offset"], code),
        (&"content".into(), &70_000.into(), Some(1))
    );
    assert_eq!(json["sizes"], serde_json::json!([1 << 20, 2 << 20]));
    let (json, code) = compare(&["-s", "a", "b"]);
    assert_eq!((&json["differs"], code), (&"size".into(), Some(1)));
    let (json, code) = compare(&["a", "a"]);
    assert_eq!((&json["identical"], code), (&true.into(), Some(0)));
}
