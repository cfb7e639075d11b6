//! `anydisk convert`.

use crate::common::{Bench, Qemu};

#[test]
fn disks_of_all_kinds_become_the_raw_disk_that_qemu_makes() {
    let Some(_) = Qemu::find() else { return };
    let bench = Bench::new();
    for disk in bench.disks() {
        if disk == "split.vmdk" {
            continue; // 5 GiB of nothing.
        }
        bench.prints(&["convert", disk, "ours.raw"]);
        bench.qemu(&format!("convert {disk} qemu.raw"));
        let read = |name| std::fs::read(bench.path(name)).unwrap();
        assert!(read("ours.raw") == read("qemu.raw"), "{disk}");
    }
}

#[test]
fn several_sources_are_laid_end_to_end() {
    let bench = Bench::new();
    bench.raw("a", 512, &[(0, &[1; 512])]);
    bench.raw("b", 1024, &[(512, &[2; 512])]);
    bench.prints(&["convert", "-f", "raw", "a", "b", "c"]);
    assert_eq!(std::fs::read(bench.path("c")).unwrap(), [[1; 512], [0; 512], [2; 512]].concat());
}

#[test]
fn zeroes_are_left_out_unless_all_is_to_be_written() {
    use std::os::unix::fs::MetadataExt;
    let bench = Bench::new();
    bench.raw("zeroes", 1 << 20, &[(0, &[0; 1 << 16])]);
    let blocks = |name| std::fs::metadata(bench.path(name)).unwrap().blocks();
    assert!(blocks("zeroes") > 0);
    bench.prints(&["convert", "-f", "raw", "zeroes", "sparse"]);
    assert_eq!(blocks("sparse"), 0);
    bench.prints(&["convert", "-f", "raw", "-S", "0", "zeroes", "full"]);
    assert!(blocks("full") >= (1 << 20) / 512);
    let error = bench.fails(&["convert", "-S", "100", "zeroes", "x"], 1);
    assert!(error.contains("Valid sizes are multiples of 512 up to 16777216"), "{error}");
}

#[test]
fn a_target_that_exists_is_written_in_place() {
    let bench = Bench::new();
    bench.raw("source", 512, &[(0, &[1; 512])]);
    bench.raw("target", 1024, &[(0, &[7; 1024])]);
    bench.prints(&["convert", "-n", "-f", "raw", "source", "target"]);
    let target = std::fs::read(bench.path("target")).unwrap();
    assert_eq!(target, [[1; 512], [7; 512]].concat());
    bench.raw("small", 256, &[]);
    let error = bench.fails(&["convert", "-n", "-f", "raw", "source", "small"], 1);
    assert!(error.contains("the source has 512 bytes, the target only 256"), "{error}");
}

#[test]
fn an_error_leaves_the_file_that_was_there() {
    let bench = Bench::new();
    bench.raw("source", 512, &[(0, &[1; 512])]);
    std::fs::write(bench.path("target"), "precious").unwrap();
    let error = bench.fails(&["convert", "-c", "-O", "raw", "source", "target"], 1);
    assert!(error.contains("Compression not supported for this file format"), "{error}");
    assert_eq!(std::fs::read(bench.path("target")).unwrap(), b"precious");
}

#[test]
fn progress_is_printed_as_qemu_prints_it() {
    let bench = Bench::new();
    bench.raw("a", 512, &[(0, b"a")]);
    let text = bench.prints(&["convert", "-p", "-f", "raw", "a", "b"]);
    assert_eq!(text, "    (0.00/100%)\r    (100.00/100%)\r\n");
    assert_eq!(bench.prints(&["convert", "-p", "-q", "-f", "raw", "a", "b"]), "");
}

#[test]
fn what_cannot_be_read_is_zero_and_told_if_the_rest_is_to_be_salvaged() {
    let bench = Bench::new();
    bench.raw("disk", 1 << 20, &[(0, &[1; 4096]), (300_000, &[2; 4096])]);
    bench.prints(&["convert", "-c", "-f", "raw", "-O", "qcow2", "disk", "a.qcow2"]);
    // The first compressed cluster, which lies behind the L2 table.
    let mut bytes = std::fs::read(bench.path("a.qcow2")).unwrap();
    bytes[0x50000..0x50010].fill(0xff);
    std::fs::write(bench.path("a.qcow2"), bytes).unwrap();
    bench.fails(&["convert", "a.qcow2", "out"], 1);
    let output = bench.anydisk(&["convert", "--salvage", "a.qcow2", "out"]);
    let said = crate::common::said(&output);
    assert!(output.status.success() && said.contains("error while reading offset 0:"), "{said}");
    let mut expected = std::fs::read(bench.path("disk")).unwrap();
    expected[..65536].fill(0);
    assert!(std::fs::read(bench.path("out")).unwrap() == expected);
}

#[test]
fn a_rate_is_kept() {
    let bench = Bench::new();
    bench.raw("disk", 1 << 20, &[(0, &[1; 1 << 20])]);
    let begun = std::time::Instant::now();
    bench.prints(&["convert", "-r", "4M", "-f", "raw", "disk", "out"]);
    assert!(begun.elapsed().as_millis() >= 250);
}

#[test]
fn a_strangers_image_with_a_backing_file_is_refused() {
    let Some(_) = Qemu::find() else { return };
    let bench = Bench::new();
    bench.raw("secret", 512, &[(0, b"secret")]);
    bench.qemu("create -q -f qcow2 -b secret -F raw top.qcow2");
    let error = bench.fails(&["convert", "--untrusted", "top.qcow2", "out"], 1);
    assert!(error.contains("top.qcow2"), "{error}");
    assert!(!bench.path("out").exists());
    bench.prints(&["convert", "top.qcow2", "out"]);
}

#[test]
fn what_is_written_in_any_format_is_the_same_disk_to_qemu() {
    let Some(qemu) = Qemu::find() else { return };
    let bench = Bench::new();
    bench.raw("source", 3 << 20, &[(0, b"x"), (70_000, &[7; 200_000])]);
    for options in [
        &["-O", "vmdk"][..],
        &["-O", "vdi"],
        &["-O", "vdi", "-o", "static=on", "-m", "1", "-W"],
        &["-O", "vmdk", "-o", "subformat=streamOptimized"],
        &["-O", "qcow2"],
        &["-O", "qcow2", "-c", "-o", "compression_type=zstd,cluster_size=1M"],
        &["-O", "qcow2", "-S", "0", "-o", "compat=0.10", "-t", "directsync"],
        &["-O", "vmdk", "-m", "1", "-W", "-S", "64k", "-t", "none", "-T", "none"],
    ] {
        let files = ["-f", "raw", "source", "target"];
        bench.prints(&[&["convert", "-q"], options, &files].concat());
        qemu.assert_same((&bench.path("target"), options[1]), (&bench.path("source"), "raw"));
    }
}

#[test]
fn a_copy_over_a_backing_file_holds_only_what_the_source_has_above_it() {
    let Some(qemu) = Qemu::find() else { return };
    for (format, options) in [("vmdk", &[][..]), ("qcow2", &[]), ("qcow2", &["-c"])] {
        let bench = Bench::new();
        bench.raw("data", 1 << 20, &[(0, &[1; 1 << 20])]);
        bench.qemu(&format!("convert -f raw -O {format} data base"));
        bench.qemu(&format!("create -q -f {format} -b base -F {format} top"));
        qemu.io(&bench.path("top"), format, &["write -P 7 64k 64k", "write -P 0 256k 64k"]);
        let over = ["convert", "-O", format, "-B", "base", "-F", format];
        bench.prints(&[&over[..], options, &["top", "copy"]].concat());
        qemu.assert_same((&bench.path("copy"), format), (&bench.path("top"), format));
        let map = qemu.map(&bench.path("copy"), format);
        let own: u64 = map.iter().filter(|run| run.depth == 0).map(|run| run.length).sum();
        assert_eq!(own, 128 << 10, "{format} {options:?}");
    }
}

#[test]
fn the_image_below_the_target_may_be_any_of_the_sources_own() {
    let Some(qemu) = Qemu::find() else { return };
    let bench = Bench::new();
    bench.raw("base", 1 << 20, &[(0, &[1; 1 << 20])]);
    bench.qemu("create -q -f qcow2 -b base -F raw middle");
    qemu.io(&bench.path("middle"), "qcow2", &["write -P 2 64k 64k"]);
    bench.qemu("create -q -f qcow2 -b middle -F qcow2 top");
    qemu.io(&bench.path("top"), "qcow2", &["write -P 3 128k 64k"]);
    // What the middle holds comes along.
    bench.prints(&["convert", "-O", "qcow2", "-B", "base", "-F", "raw", "top", "copy"]);
    qemu.assert_same((&bench.path("copy"), "qcow2"), (&bench.path("top"), "qcow2"));
}

#[test]
fn an_image_below_that_is_not_the_sources_own_is_taken_for_a_copy_with_a_warning() {
    let Some(qemu) = Qemu::find() else { return };
    let bench = Bench::new();
    bench.raw("base", 1 << 20, &[(0, &[1; 1 << 20])]);
    std::fs::copy(bench.path("base"), bench.path("moved")).unwrap();
    bench.qemu("create -q -f qcow2 -b base -F raw top");
    let line = ["convert", "-O", "qcow2", "-B", "moved", "-F", "raw", "top", "copy"];
    let output = bench.anydisk(&line);
    let warning = String::from_utf8_lossy(&output.stderr);
    let expected = "warning: moved is not the file below the source; it must hold the same\n";
    assert!(output.status.success() && warning.ends_with(expected), "{warning}");
    qemu.assert_same((&bench.path("copy"), "qcow2"), (&bench.path("top"), "qcow2"));
}

#[test]
fn a_failed_copy_over_a_backing_file_leaves_no_file() {
    let bench = Bench::new();
    bench.raw("base", 1 << 20, &[]);
    bench.raw("source", 1 << 20, &[]);
    let over = ["convert", "-f", "raw", "-O", "qcow2", "-B", "base", "-F", "raw"];
    let two = [&over[..], &["source", "source", "copy"]].concat();
    assert!(bench.fails(&two, 1).contains("makes no sense when concatenating"));
    let gone = [&over[..5], &["-B", "gone", "-F", "raw", "source", "copy"]].concat();
    assert!(bench.fails(&gone, 1).contains("Could not open 'gone'"));
    assert!(!bench.path("copy").exists());
}

#[test]
fn what_only_a_new_image_has_is_refused_for_one_that_is_there() {
    let bench = Bench::new();
    bench.raw("a", 512, &[]);
    bench.raw("b", 512, &[]);
    let error = bench.fails(&["convert", "-n", "-o", "preallocation=off", "a", "b"], 1);
    assert!(error.contains("-o has no effect when skipping image creation"), "{error}");
}

/// A child of a VDI names its parent by UUID only, which qemu-img does not read.
#[test]
fn a_vdi_over_another_one_finds_it_by_its_uuid() {
    let bench = Bench::new();
    bench.raw("source", 3 << 20, &[(0, b"x"), (70_000, &[7; 200_000])]);
    bench.prints(&["convert", "-f", "raw", "-O", "vdi", "source", "base.vdi"]);
    bench.prints(&["create", "-q", "-f", "vdi", "-b", "base.vdi", "-F", "vdi", "child.vdi"]);
    std::fs::rename(bench.path("base.vdi"), bench.path("renamed.vdi")).expect("a rename");
    bench.prints(&["compare", "-f", "raw", "-F", "vdi", "source", "child.vdi"]);
    let info = bench.prints(&["info", "child.vdi"]);
    assert!(info.contains("backing file: {"), "{info}");
    std::fs::remove_file(bench.path("renamed.vdi")).expect("a file");
    let error = bench.fails(&["compare", "-f", "raw", "-F", "vdi", "source", "child.vdi"], 2);
    assert!(error.contains("no image with this ID was found in"), "{error}");
}

#[test]
fn a_target_over_another_image_is_not_taken_for_zero() {
    let bench = Bench::new();
    bench.raw("base", 1 << 20, &[(0, &[7; 4096])]);
    bench.raw("zero", 1 << 20, &[]);
    bench.prints(&["create", "-q", "-f", "qcow2", "-F", "raw", "-b", "base", "over.qcow2"]);
    let line = ["convert", "-n", "--target-is-zero", "-f", "raw", "-O", "qcow2"];
    for more in [&["zero", "over.qcow2"][..], &["-B", "base", "-F", "raw", "zero", "over.qcow2"]] {
        let told = bench.fails(&[&line[..], more].concat(), 1);
        assert!(told.contains("when the destination image has a backing file"), "{told}");
    }
    bench.prints(&["compare", "-f", "raw", "-F", "qcow2", "base", "over.qcow2"]);
}

#[test]
fn a_folder_is_written_where_it_is_a_bundle() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("disk.hdd")).expect("a folder");
    std::fs::create_dir(bench.path("other")).expect("a folder");
    bench.prints(&["create", "-q", "-f", "parallels", "disk.hdd/disk.hds", "1M"]);
    let guid = "{5fbaabe3-6958-40ff-92a7-860e329aab41}";
    let text = format!(
        "<Parallels_disk_image><Disk_Parameters><Disk_size>2048</Disk_size></Disk_Parameters>\
         <StorageData><Storage><Start>0</Start><End>2048</End><Image><GUID>{guid}</GUID>\
         <Type>Compressed</Type><File>disk.hds</File></Image></Storage></StorageData><Snapshots>\
         <Shot><GUID>{guid}</GUID><ParentGUID>{{00000000-0000-0000-0000-000000000000}}</ParentGUID>\
         </Shot></Snapshots></Parallels_disk_image>"
    );
    std::fs::write(bench.path("disk.hdd/DiskDescriptor.xml"), text).expect("a file");
    bench.raw("a.raw", 1 << 20, &[(0, b"first"), (700_000, b"second")]);
    bench.prints(&["convert", "-n", "-f", "raw", "-O", "parallels", "a.raw", "disk.hdd"]);
    bench.prints(&["compare", "-f", "raw", "a.raw", "disk.hdd"]);
    let said = bench.fails(&["convert", "-n", "-f", "raw", "-O", "raw", "a.raw", "other"], 1);
    assert!(said.contains("Is a directory"), "{said}");
}
