//! What an image can be made or changed to be, `info` shows.

use std::collections::BTreeSet;

use anydisk::OptionSpec;
use serde_json::Value;

use crate::common::Bench;

/// A format, an option, a value of it, where `info` has it, and as what; the options behind it are
/// what the value needs.
const CREATED: &[(&str, &str, &str, &str)] = &[
    ("qcow2", "size=3M", "/virtual-size", "3145728"),
    ("qcow2", "compat=0.10", "DATA/compat", "0.10"),
    ("qcow2", "cluster_size=4k", "/cluster-size", "4096"),
    ("qcow2", "extended_l2=on", "DATA/extended-l2", "true"),
    ("qcow2", "compression_type=zstd", "DATA/compression-type", "zstd"),
    ("qcow2", "backing_file=base.qcow2,backing_fmt=qcow2", "/backing-filename", "base.qcow2"),
    ("qcow2", "backing_fmt=qcow2,backing_file=base.qcow2", "/backing-filename-format", "qcow2"),
    ("qcow2", "data_file=data", "DATA/data-file", "data"),
    ("qcow2", "data_file_raw=on,data_file=data", "DATA/data-file-raw", "true"),
    ("qcow2", "lazy_refcounts=on", "DATA/lazy-refcounts", "true"),
    ("qcow2", "refcount_bits=64", "DATA/refcount-bits", "64"),
    ("qcow2", "encryption=on,encrypt.key-secret=s", "DATA/encrypt/format", "aes"),
    ("qcow2", "encrypt.format=luks,encrypt.key-secret=s", "DATA/encrypt/format", "luks"),
    ("qcow2", "encrypt.cipher-alg=aes-128,LUKS", "DATA/encrypt/cipher-alg", "aes-128"),
    ("qcow2", "encrypt.cipher-mode=cbc,LUKS", "DATA/encrypt/cipher-mode", "cbc"),
    ("qcow2", "encrypt.ivgen-alg=plain,LUKS", "DATA/encrypt/ivgen-alg", "plain"),
    (
        "qcow2",
        "encrypt.ivgen-hash-alg=sha256,encrypt.ivgen-alg=essiv,LUKS",
        "DATA/encrypt/ivgen-hash-alg",
        "sha256",
    ),
    ("qcow2", "encrypt.hash-alg=sha512,LUKS", "DATA/encrypt/hash-alg", "sha512"),
    ("qcow", "backing_file=base.qcow2,backing_fmt=qcow2", "/backing-filename", "base.qcow2"),
    ("qcow", "cluster_size=64k", "/cluster-size", "65536"),
    ("qcow", "encryption=on,encrypt.key-secret=s", "/encrypted", "true"),
    ("qcow", "encrypt.format=aes,encrypt.key-secret=s", "/encrypted", "true"),
    ("cow", "backing_file=base.qcow2,backing_fmt=qcow2", "/backing-filename", "base.qcow2"),
    ("qed", "backing_file=base.qcow2,backing_fmt=qcow2", "/backing-filename", "base.qcow2"),
    ("qed", "backing_fmt=raw,backing_file=base.raw", "/backing-filename-format", "raw"),
    ("qed", "cluster_size=4k", "/cluster-size", "4096"),
    ("qed", "table_size=2", "DATA/table-size", "2"),
    ("vmdk", "adapter_type=lsilogic", "DATA/adapter-type", "lsilogic"),
    ("vmdk", "backing_file=base.vmdk,backing_fmt=vmdk", "/backing-filename", "base.vmdk"),
    ("vmdk", "backing_fmt=vmdk,backing_file=base.vmdk", "/backing-filename-format", "vmdk"),
    ("vmdk", "cid=0000002a", "DATA/cid", "42"),
    ("vmdk", "compat6=on", "DATA/hardware-version", "6"),
    ("vmdk", "hwversion=17", "DATA/hardware-version", "17"),
    ("vmdk", "toolsversion=99", "DATA/tools-version", "99"),
    (
        "vmdk",
        "split_size=1M,subformat=twoGbMaxExtentFlat",
        "DATA/extents/0/virtual-size",
        "1048576",
    ),
    ("vmdk", "subformat=monolithicFlat", "DATA/create-type", "monolithicFlat"),
    ("vmdk", "zeroed_grain=on", "DATA/zeroed-grain", "true"),
    ("vdi", "backing_file=base.vdi,backing_fmt=vdi", "DATA/parent-uuid", UUID),
    ("vdi", "block_size=2M", "/cluster-size", "2097152"),
    ("vdi", "static=on", "DATA/type", "fixed"),
    ("vdi", "uuid=UUID", "DATA/uuid", UUID),
    ("vdi", "uuid_modify=UUID", "DATA/modification-uuid", UUID),
    ("vpc", "subformat=fixed", "DATA/type", "fixed"),
    ("vpc", "force_size=on", "/virtual-size", "2097152"),
    ("vpc", "backing_file=base.vpc,backing_fmt=vpc", "DATA/type", "differencing"),
    ("vpc", "block_size=4k", "/cluster-size", "4096"),
    ("vpc", "uuid=UUID", "DATA/uuid", UUID),
    ("vhdx", "log_size=2M", "DATA/log-size", "2097152"),
    ("vhdx", "block_size=2M", "/cluster-size", "2097152"),
    ("vhdx", "subformat=fixed", "DATA/type", "fixed"),
    ("vhdx", "backing_file=base.vhdx,backing_fmt=vhdx", "DATA/type", "differencing"),
    ("vhdx", "logical_sector_size=4096", "DATA/logical-sector-size", "4096"),
    ("vhdx", "physical_sector_size=4096", "DATA/physical-sector-size", "4096"),
    ("vhdx", "uuid=UUID", "DATA/virtual-disk-id", UUID),
    ("luks", "cipher-alg=aes-128,key-secret=s", "DATA/cipher-alg", "aes-128"),
    ("luks", "cipher-mode=cbc,key-secret=s", "DATA/cipher-mode", "cbc"),
    ("luks", "ivgen-alg=plain,key-secret=s", "DATA/ivgen-alg", "plain"),
    ("luks", "ivgen-hash-alg=sha256,ivgen-alg=essiv,key-secret=s", "DATA/ivgen-hash-alg", "sha256"),
    ("luks", "hash-alg=sha512,key-secret=s", "DATA/hash-alg", "sha512"),
    ("luks", "luks-version=2,key-secret=s", "DATA/version", "2"),
    ("luks", "sector-size=4096,luks-version=2,key-secret=s", "DATA/sector-size", "4096"),
    ("parallels", "cluster_size=64k", "/cluster-size", "65536"),
];

/// The same of what can be changed: one image becomes all of it, line by line.
const AMENDED: &[(&str, &str, &str, &str)] = &[
    ("qcow2", "size=3M", "/virtual-size", "3145728"),
    ("qcow2", "lazy_refcounts=on", "DATA/lazy-refcounts", "true"),
    ("qcow2", "refcount_bits=64", "DATA/refcount-bits", "64"),
    ("vdi", "comment=it is mine", "DATA/comment", "it is mine"),
    ("vdi", "lchs=1024/16/63", "DATA/lchs", "1024/16/63"),
    ("vdi", "uuid=UUID", "DATA/uuid", UUID),
    ("vdi", "uuid_modify=UUID", "DATA/modification-uuid", UUID),
];

/// What is not kept in the image.
const NOT_KEPT: &[(&str, &str)] = &[
    ("preallocation", "what the file takes, at first"),
    ("iter-time", "the header has the iterations that took so long"),
    ("key-secret", "a name of this command line"),
    ("state", "of key slots, which are shown with it"),
    ("keyslot", "of key slots, which are shown with it"),
    ("old-secret", "a name of this command line"),
    ("new-secret", "a name of this command line"),
    ("detached-header", "the header is in a file of its own"),
    ("block_state_zero", "of every block, in the map"),
];

/// Formats that keep no format of the image below.
const NAMELESS: [&str; 5] = ["qcow", "cow", "vdi", "vpc", "vhdx"];

const UUID: &str = "01234567-89ab-cdef-0123-456789abcdef";

/// A value of JSON as it is in the tables.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What `info` has at a place, of an image of a format.
fn shown(bench: &Bench, (file, format): (&str, &str), place: &str) -> String {
    let info = bench.prints(&["info", "--output=json", "-f", format, file]);
    let json: Value = serde_json::from_str(&info).expect("JSON");
    let place = place.replace("DATA", "/format-specific/data");
    json.pointer(&place).map_or_else(|| format!("nothing at {place}: {info}"), text)
}

fn written(options: &str) -> String {
    let luks = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    let options = options.replace("LUKS", luks).replace("UUID", UUID);
    match options.contains("key-secret=s") && !options.contains("encrypt") {
        true => options + ",iter-time=10",
        false => options,
    }
}

fn option(options: &str) -> &str {
    options.split('=').next().expect("a name")
}

/// What a table lacks of all that formats declare.
fn lacking(
    table: &[(&str, &str, &str, &str)],
    options: fn(&dyn anydisk::Format) -> &'static [OptionSpec],
) -> Vec<String> {
    let known: BTreeSet<_> = table.iter().map(|row| (row.0, option(row.1))).collect();
    let registry = anydisk::formats();
    let all = registry
        .formats()
        .flat_map(|format| options(format).iter().map(move |spec| (format.name(), spec.name)));
    let is_missing = |(format, name): &(&'static str, &'static str)| {
        let name_alone = name.strip_prefix("encrypt.").unwrap_or(name);
        let is_kept = NOT_KEPT.iter().all(|(other, _)| *other != name_alone);
        let is_told = *name != "backing_fmt" || !NAMELESS.contains(format);
        is_kept && is_told && !known.contains(&(*format, *name))
    };
    all.filter(is_missing).map(|(format, name)| format!("{format}: {name}")).collect()
}

#[test]
fn all_that_an_image_can_be_made_to_be_is_shown() {
    let none: [String; 0] = [];
    assert_eq!(lacking(CREATED, |format| format.create_options()), none);
    let bench = Bench::new();
    for (base, options) in [
        ("qcow2", "compat=1.1".to_owned()),
        ("vmdk", "cid=0000002a".to_owned()),
        ("vdi", format!("uuid={UUID}")),
        ("vpc", format!("uuid={UUID}")),
        ("vhdx", format!("uuid={UUID}")),
    ] {
        let name = format!("base.{base}");
        bench.prints(&["create", "-q", "-f", base, "-o", &options, &name, "2M"]);
    }
    bench.raw("base.raw", 2 << 20, &[]);
    for (format, options, place, expected) in CREATED {
        let all = written(options);
        let make = ["create", "-q", "--object", "secret,id=s,data=a", "-f", format, "-o", &all];
        bench.prints(
            &[&make[..], &["new"], if all.contains("size=3M") { &[] } else { &["2M"] }].concat(),
        );
        assert_eq!(shown(&bench, ("new", format), place), *expected, "{format}: {options}");
        let _ = std::fs::remove_file(bench.path("new"));
        let _ = std::fs::remove_file(bench.path("data"));
    }
}

#[test]
fn all_that_an_image_can_be_changed_to_be_is_shown() {
    let bench = Bench::new();
    for format in ["qcow2", "vdi"] {
        bench.prints(&["create", "-q", "-f", format, &format!("disk.{format}"), "2M"]);
    }
    for (format, options, place, expected) in AMENDED {
        let file = format!("disk.{format}");
        bench.prints(&["amend", "-o", &written(options), &file]);
        assert_eq!(shown(&bench, (&file, format), place), *expected, "{format}: {options}");
    }
    // What can be given when it is made too is in the other table.
    let created: BTreeSet<_> = CREATED.iter().map(|row| (row.0, option(row.1))).collect();
    let lacking = lacking(AMENDED, |format| format.amend_options());
    let none: Vec<&String> = lacking
        .iter()
        .filter(|text| !text.split_once(": ").is_some_and(|pair| created.contains(&pair)))
        .collect();
    assert_eq!(none, Vec::<&String>::new());
}

#[test]
fn under_the_name_of_qemu_img_nothing_is_shown_that_qemu_img_does_not_show() {
    let bench = Bench::new();
    bench.prints(&["create", "-q", "-f", "vdi", "disk.vdi", "2M"]);
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_anydisk"), bench.path("qemu-img"))
        .expect("a link");
    let output = bench.command("./qemu-img").args(["info", "disk.vdi"]).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(!text.contains("Format specific"), "{text}");
    assert!(
        bench
            .prints(&["info", "disk.vdi"])
            .contains("    modification-uuid: ".replace('-', " ").as_str())
    );
}
