//! Fills `fuzz/corpus/TARGET` with what the golden images hold: `cargo run --bin seed`.

use std::fs;
use std::io;
use std::path::Path;

use anydisk_testkit::golden::cases;

/// Larger files teach a fuzzer nothing that smaller ones do not, and slow it down.
const LARGEST: usize = 512 << 10;

/// A target, the format whose images it is fed with, and what of a file it takes.
type Feed = (&'static str, &'static str, fn(&[u8]) -> Option<Vec<u8>>);

const FEEDS: &[Feed] = &[
    ("qcow2_image", "qcow2", whole),
    ("qcow2_header", "qcow2", first_4k),
    ("qcow2_check", "qcow2", whole),
    ("qcow_header", "qcow", whole),
    ("qed_image", "qed", whole),
    ("vdi_image", "vdi", first_64k),
    ("vdi_header", "vdi", first_4k),
    ("vmdk_image", "vmdk", whole),
    ("vmdk_check", "vmdk", whole),
    ("vmdk_header", "vmdk", sparse_header),
    ("vmdk_descriptor", "vmdk", descriptor),
    ("luks1_header", "luks", without_payload),
    ("luks2_header", "luks", json_of_luks2),
    ("probe", "luks", first_4k),
    ("ovf_archive", "ova", whole),
    ("ovf_descriptor", "ova", ovf),
    ("probe", "qcow2", first_4k),
    ("probe", "vmdk", first_4k),
    ("probe", "qcow", first_4k),
    ("probe", "vdi", first_4k),
    ("codec", "vmdk", zlib_stream),
    ("inspect", "qcow2", first_64k),
    ("inspect", "vmdk", first_64k),
    ("inspect", "vdi", first_64k),
    ("inspect", "luks", without_payload),
];

fn whole(file: &[u8]) -> Option<Vec<u8>> {
    (file.len() <= LARGEST).then(|| file.to_vec())
}

fn first_4k(file: &[u8]) -> Option<Vec<u8>> {
    Some(file[..file.len().min(4 << 10)].to_vec())
}

/// A VDI without most of its blocks, which all are alike.
fn first_64k(file: &[u8]) -> Option<Vec<u8>> {
    Some(file[..file.len().min(64 << 10)].to_vec())
}

/// A small part: the key slots are noise to a fuzzer.
fn without_payload(file: &[u8]) -> Option<Vec<u8>> {
    Some(file[..file.len().min(36 << 10)].to_vec())
}

fn json_of_luks2(file: &[u8]) -> Option<Vec<u8>> {
    let text = file.get(4096..16 << 10)?;
    let end = text.iter().position(|&byte| byte == 0)?;
    (file.get(7) == Some(&2) && end > 0).then(|| text[..end].to_vec())
}

fn sparse_header(file: &[u8]) -> Option<Vec<u8>> {
    file.starts_with(b"KDMV").then(|| file[..file.len().min(512)].to_vec())
}

/// A descriptor that is the whole file, or lies where sparse extents keep theirs.
fn descriptor(file: &[u8]) -> Option<Vec<u8>> {
    let embedded = file.starts_with(b"KDMV").then(|| file.get(512..)).flatten();
    let text = embedded.unwrap_or(file);
    let text = &text[..text.len().min(20 << 9)];
    let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
    text.starts_with(b"#").then(|| text[..end].to_vec())
}

/// The descriptor of a package, its first member.
fn ovf(file: &[u8]) -> Option<Vec<u8>> {
    let text = file.get(512..)?;
    let end = text.iter().position(|&byte| byte == 0)?;
    text.starts_with(b"<?xml").then(|| text[..end].to_vec())
}

/// The first grain of a streamOptimized disk, in the form that the target `codec` takes.
fn zlib_stream(file: &[u8]) -> Option<Vec<u8>> {
    let at = file.windows(2).step_by(4).skip(128).position(|pair| pair == [0x78, 0x9C])?;
    let stream = &file[512 + 4 * at..];
    // 1: zlib; a unit of 65536 bytes.
    Some([&[1, 0xFF, 0xFF], &stream[..stream.len().min(4 << 10)]].concat())
}

/// What no golden image holds.
fn made(corpus: &Path) -> io::Result<()> {
    use anydisk_testkit::lvm::{device, linear, text};
    const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    let group = text(&[ID], 1, &(linear("a", 2, "pv0", 1) + &linear("b", 1, "a", 1)));
    for (target, seed) in
        [("lvm2_text", group.as_bytes().to_vec()), ("lvm2_device", device(ID, &group, &[7; 4096]))]
    {
        fs::create_dir_all(corpus.join(target))?;
        fs::write(corpus.join(target).join("made"), seed)?;
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for format in ["luks", "ova", "qcow", "qcow2", "qed", "vdi", "vmdk"] {
        for case in cases(format) {
            let unpacked = case.unpack();
            for part in &case.files {
                let size = usize::try_from(part.size).unwrap_or(usize::MAX);
                if size > 16 << 20 {
                    continue;
                }
                let file = fs::read(unpacked.file(&part.name))?;
                for (target, _, take) in FEEDS.iter().filter(|(_, fed, _)| *fed == format) {
                    let Some(seed) = take(&file) else { continue };
                    let folder = corpus.join(target);
                    fs::create_dir_all(&folder)?;
                    fs::write(folder.join(format!("golden-{}", part.name)), seed)?;
                }
            }
        }
    }
    made(&corpus)?;
    for (target, ..) in FEEDS {
        let count = fs::read_dir(corpus.join(target))?.count();
        println!("{target}: {count} seeds");
    }
    Ok(())
}
