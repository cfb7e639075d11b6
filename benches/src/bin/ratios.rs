//! Prints the ratios of `docs/performance.md` as a table.
//!
//! Ours and theirs run in turn; the medians are compared. A row that cannot be measured says why
//! and the others go on. With an argument: only the rows whose name contains it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anydisk_benches::{
    MIB, Outcome, check, copy, copy_encrypted, create, open, open_encrypted, places, write_raw,
};
use anydisk_core::{Access, Disk, GuestOffset, GuestRange, Source};

/// Size of the disks that are read, written and converted, in bytes.
const SIZE: u64 = 256 * MIB;
const SMALL: u64 = 4 << 10;
/// Times that each side of a ratio is measured.
const ROUNDS: usize = 7;

/// One side of a ratio.
type Side<'a> = Box<dyn FnMut() -> Outcome<()> + 'a>;

/// A row: what it measures, against what, in which unit of comparison, and how.
type Row = (&'static str, &'static str, fn(&Files) -> Outcome<Times>);

const ROWS: &[Row] = &[
    ("4 KiB random read, qcow2, warm", "pread", |files| reads(files, "qcow2", SMALL, 1)),
    ("4 KiB random read, raw, warm", "pread", |files| reads(files, "raw", SMALL, 1)),
    ("4 KiB random read, vdi, warm", "pread", |files| reads(files, "vdi", SMALL, 1)),
    ("4 KiB random read, vmdk, warm", "pread", |files| reads(files, "ours.vmdk", SMALL, 1)),
    ("4 KiB random read, vpc, warm", "pread", |files| reads(files, "vpc", SMALL, 1)),
    ("4 KiB random read, vhdx, warm", "pread", |files| reads(files, "vhdx", SMALL, 1)),
    ("4 KiB random read, parallels, warm", "pread", |files| reads(files, "parallels", SMALL, 1)),
    ("1 MiB sequential read, qcow2", "pread of the same bytes", |files| long_reads(files, "qcow2")),
    ("1 MiB sequential read, vdi", "pread of the same bytes", |files| long_reads(files, "vdi")),
    ("1 MiB sequential read, vpc", "pread of the same bytes", |files| long_reads(files, "vpc")),
    ("1 MiB sequential read, vhdx", "pread of the same bytes", |files| long_reads(files, "vhdx")),
    ("1 MiB sequential read, parallels", "pread of the same bytes", |files| {
        long_reads(files, "parallels")
    }),
    ("1 MiB sequential read, vmdk", "pread of the same bytes", |files| {
        long_reads(files, "ours.vmdk")
    }),
    ("1 MiB sequential read, raw", "pread of the same bytes", |files| long_reads(files, "raw")),
    ("4 KiB random read, qcow2, 2 threads", "pread, 2 threads", |files| {
        reads(files, "qcow2", SMALL, 2)
    }),
    ("4 KiB random write, qcow2, allocated clusters", "pwrite", |files| {
        writes(files, "qcow2", Writes::ALLOCATED)
    }),
    ("4 KiB random write, vdi, allocated blocks", "pwrite", |files| {
        writes(files, "vdi", Writes::ALLOCATED)
    }),
    ("4 KiB random write, vmdk, allocated grains", "pwrite", |files| {
        writes(files, "vmdk", Writes::ALLOCATED)
    }),
    ("4 KiB random write, vpc, allocated blocks", "pwrite", |files| {
        writes(files, "vpc", Writes::ALLOCATED)
    }),
    ("4 KiB random write, vhdx, allocated blocks", "pwrite", |files| {
        writes(files, "vhdx", Writes::ALLOCATED)
    }),
    ("4 KiB random write, parallels, allocated clusters", "pwrite", |files| {
        writes(files, "parallels", Writes::ALLOCATED)
    }),
    ("1 MiB sequential write, vpc, allocated blocks", "pwrite", |files| {
        writes(files, "vpc", Writes::LONG)
    }),
    ("1 MiB sequential write, vhdx, allocated blocks", "pwrite", |files| {
        writes(files, "vhdx", Writes::LONG)
    }),
    ("1 MiB sequential write, parallels, allocated clusters", "pwrite", |files| {
        writes(files, "parallels", Writes::LONG)
    }),
    ("1 MiB sequential write, qcow2, allocated clusters", "pwrite", |files| {
        writes(files, "qcow2", Writes::LONG)
    }),
    ("1 MiB sequential write, vdi, allocated blocks", "pwrite", |files| {
        writes(files, "vdi", Writes::LONG)
    }),
    ("1 MiB sequential write, vmdk, allocated grains", "pwrite", |files| {
        writes(files, "vmdk", Writes::LONG)
    }),
    ("4 KiB random write, qcow2, fresh clusters", "pwrite, sparse file", |files| {
        writes(files, "qcow2", Writes::FRESH)
    }),
    ("4 KiB random write, vdi, fresh blocks", "pwrite, sparse file", |files| {
        writes(files, "vdi", Writes::FRESH_BLOCKS)
    }),
    ("4 KiB random write, vmdk, fresh grains", "pwrite, sparse file", |files| {
        writes(files, "vmdk", Writes::FRESH)
    }),
    ("1 MiB read, qcow2 with LUKS", "the same without", |files| encrypted(files, false)),
    ("1 MiB write, qcow2 with LUKS", "the same without", |files| encrypted(files, true)),
    ("1 MiB read, qcow2 with LUKS, 2 threads", "half as much, 1 thread", |files| {
        encrypted_on_two(files, false)
    }),
    ("1 MiB write, qcow2 with LUKS, 2 threads", "half as much, 1 thread", |files| {
        encrypted_on_two(files, true)
    }),
    ("convert raw to raw", "qemu-img convert", |files| converts(files, "raw", "raw", &[])),
    ("convert raw to qcow2", "qemu-img convert", |files| converts(files, "raw", "qcow2", &[])),
    ("convert raw to vmdk", "qemu-img convert", |files| converts(files, "raw", "vmdk", &[])),
    ("convert qcow2 to raw", "qemu-img convert", |files| converts(files, "qcow2", "raw", &[])),
    ("convert qcow2 to qcow2", "qemu-img convert", |files| converts(files, "qcow2", "qcow2", &[])),
    ("convert qcow2 to vmdk", "qemu-img convert", |files| converts(files, "qcow2", "vmdk", &[])),
    ("convert vmdk to raw", "qemu-img convert", |files| converts(files, "vmdk", "raw", &[])),
    ("convert vmdk to qcow2", "qemu-img convert", |files| converts(files, "vmdk", "qcow2", &[])),
    ("convert vmdk to vmdk", "qemu-img convert", |files| converts(files, "vmdk", "vmdk", &[])),
    ("convert raw to vdi", "qemu-img convert", |files| converts(files, "raw", "vdi", &[])),
    ("convert vdi to raw", "qemu-img convert", |files| converts(files, "vdi", "raw", &[])),
    ("convert raw to qcow2, zlib", "qemu-img convert -c", |files| {
        converts(files, "raw", "qcow2", &["-c"])
    }),
    ("convert raw to qcow2, zstd", "qemu-img convert -c", |files| {
        converts(files, "raw", "qcow2", &["-c", "-o", "compression_type=zstd"])
    }),
    ("convert qcow2 to qcow2, both zlib", "qemu-img convert -c", |files| {
        converts(files, "packed.qcow2", "qcow2", &["-c"])
    }),
    ("convert raw to vmdk, streamOptimized", "qemu-img convert", |files| {
        converts(files, "raw", "vmdk", &["-o", "subformat=streamOptimized"])
    }),
    ("convert vmdk, streamOptimized, to raw", "qemu-img convert", |files| {
        converts(files, "stream.vmdk", "raw", &[])
    }),
    ("convert vmdk, streamOptimized, on 2 cores", "on one core", |files| {
        cores(files, "stream.vmdk", "raw", &[])
    }),
    ("convert raw to vmdk, streamOptimized, on 2 cores", "on one core", |files| {
        cores(files, "raw", "vmdk", &["-o", "subformat=streamOptimized"])
    }),
    ("open a qcow2 image of 64 TiB", "one of 1 GiB", opens),
    ("check of 10 GiB with ten snapshots, in process", "qemu-img check", |files| {
        checks(files, 0, |path| check(path, std::thread::available_parallelism()?.get()))
    }),
    ("check of 10 GiB with ten snapshots", "qemu-img check", |files| {
        checks(files, 0, |path| run(&own_tool()?, &["check", "-q", "-f", "qcow2"], path))
    }),
    ("check of 10 GiB with 210 snapshots", "qemu-img check", |files| {
        checks(files, 200, |path| run(&own_tool()?, &["check", "-q", "-f", "qcow2"], path))
    }),
];

/// The images, all with the same content.
struct Files {
    folder: tempfile::TempDir,
}

/// Median times of the two sides.
struct Times {
    ours: Duration,
    theirs: Duration,
}

impl Files {
    fn make() -> Outcome<Self> {
        let files = Self { folder: tempfile::tempdir()? };
        write_raw(&files.path("raw"), SIZE)?;
        let raw = open(&files.path("raw"), "raw", Access::Read)?;
        copy(&raw, &files.path("qcow2"), "qcow2", false)?;
        copy(&raw, &files.path("packed.qcow2"), "qcow2", true)?;
        copy(&raw, &files.path("vdi"), "vdi", false)?;
        copy(&raw, &files.path("vpc"), "vpc", false)?;
        copy(&raw, &files.path("vhdx"), "vhdx", false)?;
        copy(&raw, &files.path("parallels"), "parallels", false)?;
        copy(&raw, &files.path("ours.vmdk"), "vmdk", false)?;
        let source = files.path("raw");
        let packed = ["-o", "subformat=streamOptimized"];
        convert("qemu-img", ("raw", &source), ("vmdk", &files.path("vmdk")), &[])?;
        convert("qemu-img", ("raw", &source), ("vmdk", &files.path("stream.vmdk")), &packed)?;
        Ok(files)
    }

    /// The same content, encrypted, open for writing.
    fn encrypted(&self) -> Outcome<Disk> {
        let path = self.path("luks.qcow2");
        if !path.exists() {
            copy_encrypted(&open(&self.path("raw"), "raw", Access::Read)?, &path)?;
        }
        open_encrypted(&path, Access::ReadWrite)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// The format of an image of that name.
fn format_of(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// What is written, and where.
#[derive(Clone, Copy)]
struct Writes {
    /// Bytes of each write.
    len: u64,
    /// In order, at places so far apart; else at random.
    step: Option<u64>,
    /// To an image that is new.
    fresh: bool,
}

impl Writes {
    const ALLOCATED: Self = Self { len: SMALL, step: None, fresh: false };
    const LONG: Self = Self { len: MIB, step: Some(MIB), fresh: false };
    const FRESH: Self = Self { len: SMALL, step: Some(64 << 10), fresh: true };
    const FRESH_BLOCKS: Self = Self { step: Some(MIB), ..Self::FRESH };

    fn places(self) -> Vec<u64> {
        match self.step {
            Some(step) => (0..SIZE).step_by(usize::try_from(step).unwrap_or(usize::MAX)).collect(),
            None => places(20_000, self.len, SIZE),
        }
    }
}

/// Measures the two sides in turn, after a round that only warms.
fn compare(mut ours: Side<'_>, mut theirs: Side<'_>) -> Outcome<Times> {
    let mut times = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let (first, second) = (time(&mut ours)?, time(&mut theirs)?);
        if round > 0 {
            times.0.push(first);
            times.1.push(second);
        }
    }
    Ok(Times { ours: median(times.0), theirs: median(times.1) })
}

fn time(side: &mut Side<'_>) -> Outcome<Duration> {
    let begin = Instant::now();
    side()?;
    Ok(begin.elapsed())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn reads(files: &Files, format: &str, len: u64, threads: usize) -> Outcome<Times> {
    let disk = open(&files.path(format), format_of(format), Access::Read)?;
    let file = File::open(files.path("raw"))?;
    let places = places(50_000, len, SIZE);
    let ours = || on_threads(threads, len, &places, |at, buf| Ok(disk.read(GuestOffset(at), buf)?));
    let theirs = || on_threads(threads, len, &places, |at, buf| Ok(file.read_exact_at(buf, at)?));
    compare(Box::new(ours), Box::new(theirs))
}

/// From the first byte to the last. Theirs reads the same file where the image's data lies in it:
/// how large the pieces are in which a file happens to be cached tells more than who reads it.
fn long_reads(files: &Files, format: &str) -> Outcome<Times> {
    let disk = open(&files.path(format), format_of(format), Access::Read)?;
    let file = File::open(files.path(format))?;
    let guest: Vec<u64> = (0..SIZE).step_by(usize::try_from(MIB)?).collect();
    let host = guest.iter().map(|&at| host_place(&disk, at)).collect::<Outcome<Vec<u64>>>()?;
    let ours = || on_threads(1, MIB, &guest, |at, buf| Ok(disk.read(GuestOffset(at), buf)?));
    let theirs = || on_threads(1, MIB, &host, |at, buf| Ok(file.read_exact_at(buf, at)?));
    compare(Box::new(ours), Box::new(theirs))
}

/// Where a mebibyte of the disk lies in the file, in one piece.
fn host_place(disk: &Disk, at: u64) -> Outcome<u64> {
    let range = GuestRange::new(GuestOffset(at), MIB).ok_or("off the disk")?;
    let found = disk.map(range)?.extent;
    match found.source {
        Source::Data { at, .. } if found.len == MIB => Ok(at.get()),
        _ => Err("the data does not lie in one piece".into()),
    }
}

/// An encrypted image and a plain one with the same content.
fn encrypted(files: &Files, write: bool) -> Outcome<Times> {
    let (secret, plain) = (files.encrypted()?, files.path("plain.qcow2"));
    copy(&open(&files.path("raw"), "raw", Access::Read)?, &plain, "qcow2", false)?;
    let plain = open(&plain, "qcow2", Access::ReadWrite)?;
    let places = places(200, MIB, SIZE);
    let ours = || on_threads(1, MIB, &places, |at, buf| transfer(&secret, write, at, buf));
    let theirs = || on_threads(1, MIB, &places, |at, buf| transfer(&plain, write, at, buf));
    compare(Box::new(ours), Box::new(theirs))
}

/// Two threads do as much each as one.
fn encrypted_on_two(files: &Files, write: bool) -> Outcome<Times> {
    let disk = files.encrypted()?;
    let places = places(200, MIB, SIZE);
    let on = |threads| on_threads(threads, MIB, &places, |at, buf| transfer(&disk, write, at, buf));
    compare(Box::new(|| on(2)), Box::new(|| on(1)))
}

/// Reads or writes a piece.
fn transfer(disk: &Disk, write: bool, at: u64, buf: &mut [u8]) -> Outcome<()> {
    let at = GuestOffset(at);
    if write {
        disk.write(at, buf)?
    } else {
        disk.read(at, buf)?
    }
    Ok(())
}

/// Each thread reads at every place.
fn on_threads(
    threads: usize,
    len: u64,
    places: &[u64],
    read: impl Fn(u64, &mut [u8]) -> Outcome<()> + Sync,
) -> Outcome<()> {
    let run = || -> Result<(), String> {
        let mut buf = vec![0; usize::try_from(len).map_err(|error| error.to_string())?];
        places.iter().try_for_each(|&at| read(at, &mut buf).map_err(|error| error.to_string()))
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        running.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a panic")?)
    })?;
    Ok(())
}

/// Writes at places that are new to the image, each into a cluster of its own, or allocated.
fn writes(files: &Files, format: &str, how: Writes) -> Outcome<Times> {
    let (image, plain) = (files.path("written"), files.path("written.raw"));
    let data = vec![7; usize::try_from(how.len)?];
    let places = how.places();
    let renew = |disk: &mut Option<Disk>, file: &mut Option<File>| -> Outcome<()> {
        // The writer of the round before holds a lock on the file.
        *disk = None;
        create(&image, format, SIZE)?;
        *disk = Some(open(&image, format, Access::ReadWrite)?);
        let new = File::create(&plain)?;
        new.set_len(SIZE)?;
        *file = Some(new);
        Ok(())
    };
    let (mut disk, mut file) = (None, None);
    let mut times = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        if how.fresh || round == 0 {
            renew(&mut disk, &mut file)?;
        }
        let (Some(disk), Some(file)) = (&disk, &file) else { continue };
        let mut ours: Side<'_> =
            Box::new(|| places.iter().try_for_each(|&at| Ok(disk.write(GuestOffset(at), &data)?)));
        let mut theirs: Side<'_> =
            Box::new(|| places.iter().try_for_each(|&at| Ok(file.write_all_at(&data, at)?)));
        let (first, second) = (time(&mut ours)?, time(&mut theirs)?);
        if round > 0 {
            times.0.push(first);
            times.1.push(second);
        }
    }
    Ok(Times { ours: median(times.0), theirs: median(times.1) })
}

/// Two programs, from start to exit, as their users call them.
fn converts(files: &Files, from: &str, to: &str, how: &[&str]) -> Outcome<Times> {
    let own = own_tool()?;
    let source = files.path(from);
    let from = format_of(from);
    let (mine, other) = (files.path("ours"), files.path("theirs"));
    let mut times = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let mut ours: Side<'_> = Box::new(|| convert(&own, (from, &source), (to, &mine), how));
        let mut theirs: Side<'_> =
            Box::new(|| convert("qemu-img", (from, &source), (to, &other), how));
        let (first, second) = (time(&mut ours)?, time(&mut theirs)?);
        // Giving back the blocks of an older target would take longer than some conversions.
        std::fs::remove_file(&mine)?;
        std::fs::remove_file(&other)?;
        if round > 0 {
            times.0.push(first);
            times.1.push(second);
        }
    }
    Ok(Times { ours: median(times.0), theirs: median(times.1) })
}

/// Ours on all cores, against ours on the first one.
fn cores(files: &Files, from: &str, to: &str, how: &[&str]) -> Outcome<Times> {
    let own = std::env::current_exe()?.with_file_name("anydisk");
    let own = own.to_str().ok_or("the path of the tool is no text")?;
    let (source, target) = (files.path(from), files.path("ours"));
    let line = |pinned: &[&str]| -> Outcome<()> {
        let words = [pinned, &[own, "convert", "-f", format_of(from), "-O", to], how].concat();
        let (program, rest) = words.split_first().ok_or("no program")?;
        run_on(program, rest, &[&source, &target])
    };
    let ours = || line(&[]);
    let theirs = || line(&["taskset", "-c", "0"]);
    compare(Box::new(ours), Box::new(theirs))
}

fn convert(
    program: &str,
    (from, source): (&str, &Path),
    (to, target): (&str, &Path),
    how: &[&str],
) -> Outcome<()> {
    run_on(program, &[&["convert", "-f", from, "-O", to], how].concat(), &[source, target])
}

fn opens(files: &Files) -> Outcome<Times> {
    let (large, small) = (files.path("64T.qcow2"), files.path("1G.qcow2"));
    create(&large, "qcow2", 64 << 40)?;
    create(&small, "qcow2", 1 << 30)?;
    let many = |path: &Path| -> Outcome<()> {
        (0..200).try_for_each(|_| open(path, "qcow2", Access::Read).map(drop))
    };
    compare(Box::new(|| many(&large)), Box::new(|| many(&small)))
}

/// An image of 10 GiB with every cluster mapped and ten snapshots, each of which has tables of its
/// own, and `more` that share theirs.
fn checks(files: &Files, more: usize, ours: fn(&Path) -> Outcome<()>) -> Outcome<Times> {
    let path = files.path("checked.qcow2");
    if !path.exists() {
        make_checked(&path)?;
    }
    for number in 0..more {
        run(&own_tool()?, &["snapshot", "-c", &format!("more{number}")], &path)?;
    }
    let theirs = || run("qemu-img", &["check", "-q", "-f", "qcow2"], &path);
    compare(Box::new(|| ours(&path)), Box::new(theirs))
}

/// The tool of this workspace.
fn own_tool() -> Outcome<String> {
    let own = std::env::current_exe()?.with_file_name("anydisk");
    if !own.exists() {
        return Err("the tool is not built for release beside this program".into());
    }
    Ok(own.to_str().ok_or("the path of the tool is no text")?.to_owned())
}

fn make_checked(path: &Path) -> Outcome<()> {
    let status = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-o", "preallocation=metadata"])
        .arg(path)
        .arg("10G")
        .status()?;
    if !status.success() {
        return Err(format!("qemu-img create: {status}").into());
    }
    for number in 0..10 {
        run("qemu-img", &["snapshot", "-c", &format!("s{number}")], path)?;
        let writes: Vec<String> = (0..20)
            .map(|table| format!("write -q -P {number} {}M 64k", table * 512 + number))
            .collect();
        let mut arguments = vec!["-f", "qcow2"];
        arguments.extend(writes.iter().flat_map(|write| ["-c", write]));
        run("qemu-io", &arguments, path)?;
    }
    Ok(())
}

/// Runs a program on a file.
fn run(program: &str, arguments: &[&str], path: &Path) -> Outcome<()> {
    run_on(program, arguments, &[path])
}

/// Runs a program on files.
fn run_on(program: &str, arguments: &[&str], paths: &[&Path]) -> Outcome<()> {
    let mut command = Command::new(program);
    command.args(arguments).args(paths).stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.status().map_err(|error| format!("{program}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{program}: {status}").into()) }
}

fn main() -> Outcome<()> {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let files = Files::make()?;
    println!("| what | against | ours ms | theirs ms | rate, theirs = 1 |");
    println!("|---|---|---|---|---|");
    let mut missing = 0;
    for (what, against, measure) in ROWS.iter().filter(|(what, ..)| what.contains(&wanted)) {
        match measure(&files) {
            Ok(Times { ours, theirs }) => {
                let rate = theirs.as_secs_f64() / ours.as_secs_f64();
                let (ours, theirs) = (ours.as_secs_f64() * 1e3, theirs.as_secs_f64() * 1e3);
                println!("| {what} | {against} | {ours:.1} | {theirs:.1} | {rate:.2} |");
            }
            Err(error) => {
                missing += 1;
                println!("| {what} | {against} | NOT MEASURED: {error} | | |");
            }
        }
    }
    if missing > 0 { Err(format!("{missing} rows were not measured").into()) } else { Ok(()) }
}
