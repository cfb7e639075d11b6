//! `anydisk compact`.

use crate::common::Bench;

fn length(bench: &Bench, file: &str) -> u64 {
    std::fs::metadata(bench.path(file)).expect("it is there").len()
}

#[test]
fn an_image_becomes_as_short_as_what_it_holds_and_keeps_its_content() {
    for format in ["qcow2", "vdi"] {
        let bench = Bench::new();
        bench.raw("full", 8 << 20, &[(0, &[1; 8 << 20])]);
        bench.raw("half", 8 << 20, &[(4 << 20, &[1; 1 << 20])]);
        bench.prints(&["convert", "-q", "-f", "raw", "-O", format, "full", "image"]);
        bench.prints(&[
            "convert", "-q", "-n", "-S", "4k", "-f", "raw", "-O", format, "half", "image",
        ]);
        let before = length(&bench, "image");
        let text = bench.prints(&["compact", "image"]);
        assert!(text.starts_with("Image compacted: "), "{text}");
        let after = length(&bench, "image");
        assert!(after + (6 << 20) < before, "{format}: {before} to {after}");
        assert_eq!(bench.prints(&["compare", "half", "image"]), "Images are identical.\n");
        bench.prints(&["check", "image"]);
        let json = bench.prints(&["compact", "--output=json", "image"]);
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(json["length-after"], after);
        assert_eq!((&json["format"], &json["filename"]), (&format.into(), &"image".into()));
    }
}

#[test]
fn a_format_that_cannot_be_compacted_is_refused_by_its_name() {
    let bench = Bench::new();
    bench.raw("disk", 1 << 20, &[]);
    let error = bench.fails(&["compact", "-f", "raw", "disk"], 1);
    assert_eq!(error, "anydisk: disk: raw: compacting an image is not supported\n");
}
