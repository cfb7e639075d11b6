//! External data files that are elsewhere than their images say.

use crate::common::Bench;

const NODE: &str = "driver=qcow2,file.filename=image,data-file.filename=moved";

fn moved() -> Bench {
    let bench = Bench::new();
    bench.raw("disk", 1 << 20, &[(0, b"begin"), (700_000, &[9; 100_000])]);
    bench.prints(&["convert", "-f", "raw", "-O", "qcow2", "-o", "data_file=data", "disk", "image"]);
    std::fs::rename(bench.path("data"), bench.path("moved")).expect("another name");
    bench
}

#[test]
fn a_data_file_that_was_moved_is_read_and_written_where_the_options_say() {
    let bench = moved();
    let error = bench.fails(&["convert", "-O", "raw", "image", "copy"], 1);
    assert!(error.contains("data"), "{error}");
    for untrusted in [&[][..], &["--untrusted"]] {
        let line = ["convert", "-O", "raw", "--image-opts", NODE, "copy"];
        bench.prints(&[&line[..], untrusted].concat());
        let [copy, disk] =
            ["copy", "disk"].map(|name| std::fs::read(bench.path(name)).expect("it"));
        assert!(copy == disk);
    }
    let before = std::fs::read(bench.path("moved")).expect("it");
    let line = ["bench", "-w", "-q", "-c1", "-s", "4096", "--pattern", "65", "--image-opts", NODE];
    bench.prints(&line);
    let after = std::fs::read(bench.path("moved")).expect("it");
    assert!(after[..4096] == [65; 4096] && after[4096..] == before[4096..]);
    bench.prints(&["check", "--image-opts", NODE]);
    assert!(bench.prints(&["info", "--image-opts", NODE]).starts_with("image: image\n"));
    assert!(!bench.path("data").exists());
}

#[test]
fn an_image_that_has_its_data_itself_takes_no_data_file() {
    let bench = moved();
    bench.prints(&["create", "-q", "-f", "qcow2", "own", "1M"]);
    let node = "driver=qcow2,file.filename=own,data-file.filename=moved";
    let error = bench.fails(&["map", "--image-opts", node], 1);
    assert!(error.contains("can only be set for images with an external data file"), "{error}");
    let node = "driver=vmdk,file.filename=own,data-file.filename=moved";
    let error = bench.fails(&["map", "--image-opts", node], 1);
    assert!(error.contains("does not support the option 'data-file.filename'"), "{error}");
}
