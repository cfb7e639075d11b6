//! Prints what one snapshot more costs, in time and in memory, on an image of 10 GiB in which every
//! cluster is mapped.

use std::path::Path;
use std::time::{Duration, Instant};

use anydisk_benches::{Outcome, create_mapped, open};
use anydisk_core::{Access, NewSnapshot};

const SIZE: u64 = 10 << 30;
/// Rows are printed behind so many snapshots.
const ROWS: [usize; 3] = [10, 100, 1000];
/// The median of so many is told.
const LAST: usize = 10;

fn main() -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("image.qcow2");
    create_mapped(&path, SIZE)?;
    println!("| snapshots | ms for one more | most memory until then |");
    println!("|---|---|---|");
    let mut times = Vec::new();
    for number in 1..=ROWS[ROWS.len() - 1] {
        times.push(keep(&path, number)?);
        if ROWS.contains(&number) {
            let mut last = times[times.len() - LAST..].to_vec();
            last.sort();
            let median = last[LAST / 2].as_secs_f64() * 1e3;
            println!("| {number} | {median:.1} | {} |", peak()?);
        }
    }
    Ok(())
}

/// Opens the image, keeps its state, closes it.
fn keep(path: &Path, number: usize) -> Outcome<Duration> {
    let begin = Instant::now();
    let disk = open(path, "qcow2", Access::ReadWrite)?;
    let snapshots = disk.top().snapshots().ok_or("qcow2 has snapshots")?;
    snapshots.create(&NewSnapshot { name: format!("s{number}"), ..NewSnapshot::default() })?;
    drop(disk);
    Ok(begin.elapsed())
}

/// The most memory that this process had, as the kernel tells it.
fn peak() -> Outcome<String> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    Ok(line.ok_or("the kernel does not tell")?.trim().to_owned())
}
