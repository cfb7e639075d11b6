//! `anydisk create`.

use crate::common::{Bench, Qemu};

#[test]
fn a_raw_disk_is_a_sparse_file_of_the_size() {
    use std::os::unix::fs::MetadataExt;
    let bench = Bench::new();
    assert_eq!(
        bench.prints(&["create", "disk.raw", "1.5G"]),
        "Formatting 'disk.raw', fmt=raw size=1610612736\n"
    );
    let meta = std::fs::metadata(bench.path("disk.raw")).unwrap();
    assert_eq!((meta.len(), meta.blocks()), (1_610_612_736, 0));
    assert_eq!(bench.prints(&["create", "-q", "disk.raw", "1M"]), "");
}

#[test]
fn what_is_said_is_qemus() {
    let Some(_) = Qemu::find() else { return };
    let bench = Bench::new();
    for line in [
        "create a.raw 1M",
        "create -f raw -o preallocation=full a.raw 64k",
        "create -f raw -o size=1M a.raw",
        "create -f raw a,b.raw 1k",
        "create a.raw",
        "create a.raw much",
        "create -f raw -o nothing=1 a.raw 1M",
        "create -f unknown a.raw 1M",
        "create -f raw -b a.raw -F raw b.raw",
        "create -f vdi a.vdi 64M",
        "create -f vdi -o static=on b.vdi 64M",
        "create -f vmdk a.vmdk 64M",
        "create -f vmdk -o adapter_type=lsilogic,compat6=on b.vmdk 64M",
        "create -f vmdk -o zeroed_grain=on c.vmdk 64M",
        "create -f vmdk -o subformat=streamOptimized d.vmdk 64M",
        "create -f vmdk -b a.vmdk -F vmdk e.vmdk",
        "create -f vmdk -b missing.vmdk -F vmdk e.vmdk",
        "create -f qcow2 a.qcow2 64M",
        "create -f qcow2 -o cluster_size=4k,lazy_refcounts=yes,compression_type=zstd b.qcow2 1M",
        "create -f qcow2 -o compat=0.10,preallocation=metadata c.qcow2 1M",
        "create -f qcow2 -o cluster_size=3k d.qcow2 1M",
        "create -f qcow2 -b a.qcow2 -F qcow2 e.qcow2",
        "create -f qcow2 -b a.qcow2 -F qcow2 e.qcow2 128M",
        "create -f qcow2 -b a.qcow2 e.qcow2",
        "create -f qcow2 -u -b missing -F raw f.qcow2 1M",
        "create -f qcow2 -u -b missing -F raw f.qcow2",
        "create -f qcow2 -o backing_file=a,,b.raw,backing_fmt=raw g.qcow2",
        "create -f qcow2 -o size=1M h.qcow2 1M",
        "create -f raw -F raw i.raw 1M",
        "create i.raw -- -1",
        "create i.raw 16E",
        "create i.raw 1 2",
        "create",
    ] {
        bench.assert_same(line);
    }
}

#[test]
fn an_unknown_option_is_refused_with_those_there_are() {
    let bench = Bench::new();
    let error = bench.fails(&["create", "-o", "nothing=1", "a.raw", "1M"], 1);
    assert!(error.contains("a.raw: Invalid parameter 'nothing'"), "{error}");
    assert!(error.contains("preallocation"), "{error}");
    assert!(!bench.path("a.raw").exists());
}

#[test]
fn a_backing_file_needs_its_format() {
    let bench = Bench::new();
    bench.raw("base", 512, &[]);
    let error = bench.fails(&["create", "-f", "vmdk", "-b", "base", "top.vmdk"], 1);
    assert!(error.contains("top.vmdk: Backing file specified without backing format"), "{error}");
}

#[test]
fn no_image_is_made_over_the_file_that_it_would_replace() {
    let bench = Bench::new();
    bench.raw("base", 1 << 20, &[(0, b"begin")]);
    std::os::unix::fs::symlink("base", bench.path("link")).unwrap();
    let before = std::fs::read(bench.path("base")).unwrap();
    let json = "json:{\"driver\":\"raw\",\"file.filename\":\"base\"}";
    for (backing, target) in [
        ("base", "base"),
        ("./base", "base"),
        ("link", "base"),
        (json, "base"),
        ("base", "file:base"),
    ] {
        for line in [
            &["create", "-f", "qcow2", "-b", backing, "-F", "raw", target][..],
            &["create", "-f", "qcow2", "-u", "-b", backing, "-F", "raw", target, "1M"],
            &["convert", "-f", "raw", "-O", "qcow2", "-B", backing, "-F", "raw", "base", target],
        ] {
            let error = bench.fails(line, 1);
            assert!(error.contains("same filename as the backing file"), "{line:?}: {error}");
        }
    }
    assert!(std::fs::read(bench.path("base")).unwrap() == before);
}

#[test]
fn help_lists_the_options_of_the_format() {
    let bench = Bench::new();
    let text = bench.prints(&["create", "-f", "qcow2", "-o", "help"]);
    let line = "\n  refcount_bits=<num>    - Width of a reference count entry in bits\n";
    assert!(text.starts_with("Supported qcow2 options:\n") && text.contains(line), "{text}");
    let text = bench.prints(&["create", "-f", "raw", "-o", "help", "disk"]);
    assert!(text.starts_with("Supported options:\n  extent_size_hint=<size> "), "{text}");
    assert!(text.contains("\n  preallocation=<str> "), "{text}");
    let text = bench.prints(&["create", "-f", "vdi", "-o", "help"]);
    assert!(text.contains("\n\nFurther options:\n  backing_file=<str> "), "{text}");
    let text = bench.prints(&["create", "-f", "vmdk", "-o", "help"]);
    assert!(text.contains("\n  subformat=<str>        - also vmfs, vmfsSparse\n"), "{text}");
}

#[test]
fn a_disk_too_large_for_a_kind_of_vmdk_is_refused_with_the_kinds_that_can() {
    let bench = Bench::new();
    let error = bench.fails(&["create", "-f", "vmdk", "a.vmdk", "3T"], 1);
    assert!(error.contains("twoGbMaxExtentSparse"), "{error}");
    bench.prints(&["create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", "b.vmdk", "3T"]);
}

#[test]
fn an_overlay_shows_the_image_below_to_qemu() {
    let Some(qemu) = Qemu::find() else { return };
    let bench = Bench::new();
    bench.raw("data", 1 << 20, &[(0, b"x"), (70_000, b"y")]);
    bench.qemu("convert -f raw -O vmdk data base.vmdk");
    bench.prints(&["create", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", "top.vmdk"]);
    qemu.assert_same((&bench.path("top.vmdk"), "vmdk"), (&bench.path("data"), "raw"));
}

#[test]
fn no_image_is_made_over_one_further_down_the_chain() {
    let bench = Bench::new();
    bench.prints(&["create", "-q", "-f", "qcow2", "base.qcow2", "1M"]);
    let over = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"];
    bench.prints(&[&over[..], &["base.qcow2", "middle.qcow2"]].concat());
    let before = std::fs::read(bench.path("base.qcow2")).expect("read");
    let told = bench.fails(&[&over[..], &["middle.qcow2", "base.qcow2"]].concat(), 1);
    assert!(told.contains("over a file in the chain of its backing file"), "{told}");
    assert!(std::fs::read(bench.path("base.qcow2")).expect("read") == before);
    bench.prints(&[&over[..], &["middle.qcow2", "top.qcow2"]].concat());
}

#[test]
fn no_extent_of_a_new_image_takes_the_place_of_one_of_the_chain_below() {
    let bench = Bench::new();
    bench.raw("data", 1 << 20, &[(0, &[7; 1 << 20])]);
    let split = ["-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse"];
    bench.prints(&["convert", "-f", "raw", "-O", "vmdk", "-o", split[3], "data", "x.vmdk"]);
    std::fs::rename(bench.path("x.vmdk"), bench.path("base.vmdk")).expect("renamed");
    let over = [&["create", "-q"][..], &split, &["-F", "vmdk", "-b"]].concat();
    bench.prints(&[&over[..], &["base.vmdk", "middle.vmdk"]].concat());
    for below in ["base.vmdk", "middle.vmdk"] {
        bench.fails(&[&over[..], &[below, "x.vmdk"]].concat(), 1);
        assert!(!bench.path("x.vmdk").exists(), "over {below}");
        bench.prints(&["compare", "-f", "vmdk", "-F", "raw", below, "data"]);
    }
}

#[test]
fn a_data_file_may_lie_in_another_folder() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("sub")).expect("a folder");
    let absolute = bench.path("sub/b.data").display().to_string();
    bench.raw("data", 1 << 20, &[(0, &[7; 1 << 20])]);
    for (image, name) in [("a.qcow2", "sub/a.data"), ("b.qcow2", &absolute)] {
        let option = format!("data_file={name},data_file_raw=on");
        bench.prints(&["create", "-q", "-f", "qcow2", "-o", &option, image, "1M"]);
        bench.prints(&["convert", "-n", "-f", "raw", "-O", "qcow2", "data", image]);
        let same = std::fs::read(bench.path(name)).expect("it is there");
        assert!(same == std::fs::read(bench.path("data")).expect("it is there"), "{name}");
        if Qemu::find().is_some() {
            bench.qemu(&format!("compare -f qcow2 -F raw {image} data"));
        }
    }
}

#[test]
fn nothing_is_said_of_a_format_that_is_only_read_but_that() {
    let bench = Bench::new();
    let output = bench.anydisk(&["create", "-f", "dmg", "a", "1M"]);
    assert_eq!((output.status.code(), output.stdout), (Some(1), Vec::new()));
}

#[test]
fn an_image_that_will_not_find_the_one_below_is_made_with_a_warning() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("other")).expect("a folder");
    for (base, is_lost) in [("other/base.vdi", true), ("base.vdi", false)] {
        bench.prints(&["create", "-q", "-f", "vdi", base, "1M"]);
        let child = ["create", "-f", "vdi", "-b", base, "-F", "vdi", "child.vdi"];
        let output = bench.anydisk(&child);
        assert!(output.status.success(), "{}", crate::common::said(&output));
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            told.contains("child.vdi: names the image below by its UUID"),
            is_lost,
            "{told}"
        );
        assert_eq!(bench.anydisk(&["map", "child.vdi"]).status.success(), !is_lost);
    }
}
