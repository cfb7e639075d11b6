//! The same command lines through qemu-img and anydisk, in twin folders: what they answer, print and
//! leave behind must be the same.
//!
//! The lines are data: `lines/*.txt`, one file for each command, in groups:
//!
//! ```text
//! == a group has a folder of its own, and what its lines leave behind is judged when all have run
//! $ create -q -f qcow2 base.qcow2 1M          prepared once, by qemu-img, for both
//! $io -f qcow2 -c 'write 0 4k' base.qcow2     prepared by qemu-io
//! $any create -q -f qcow2 other.qcow2 1M       prepared by anydisk
//! $poke base.qcow2 0x2000a 0001                damaged: hexadecimal bytes at an offset
//! create -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
//! [stricter: code stderr] create -f qcow2 -b gone -F raw top.qcow2
//! ```
//!
//! `[name: what]` before a line is a difference that is intended: one of `differences.txt`, which
//! has the reasons, and what differs of code, stdout, stderr. Such a line must differ so. Marks for
//! a whole group stand in lines of their own below the title: `% name: what` (each line differs so),
//! `% space` (how much space files take and how they are laid out is not compared) and `% files`
//! (the files left behind are not).
//!
//! In every folder lies `data`: a raw disk of 1 MiB with three pieces of data.

mod judge;
mod line;
mod normal;
mod run;

use std::collections::BTreeSet;

use crate::common::Qemu;

/// The files of lines.
macro_rules! files {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                let Some(_) = Qemu::find() else { return };
                run::file(stringify!($name), include_str!(concat!("lines/", stringify!($name), ".txt")));
            }
        )*

        /// All lines.
        const FILES: &[(&str, &str)] =
            &[$((stringify!($name), include_str!(concat!("lines/", stringify!($name), ".txt")))),*];
    };
}

files! {
    amend bench bitmap check commit compare convert corners create dd encrypted info map measure names
    parallels qed rebase resize snapshot vhd vhdx extended_l2
}

const DIFFERENCES: &str = include_str!("differences.txt");
const DOCUMENTATION: &str = include_str!("../../../../../docs/qemu-img.md");

/// Names and reasons.
fn differences() -> Vec<(&'static str, &'static str)> {
    let lines = DIFFERENCES.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_once(": ").expect("name: reason")).collect()
}

#[test]
fn every_intended_difference_is_shown_by_a_line_and_told_in_the_documentation() {
    let mut shown = BTreeSet::new();
    for (file, text) in FILES {
        for group in line::groups(file, text) {
            shown.extend(group.lines.into_iter().filter_map(|line| Some(line.differs?.name)));
        }
    }
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let documentation = words(DOCUMENTATION);
    let mut listed = BTreeSet::new();
    for (name, reason) in differences() {
        assert!(shown.contains(name), "no line shows the difference {name:?}");
        let told = words(&format!("- **{name}**: {reason}"));
        assert!(documentation.contains(&told), "docs/qemu-img.md lacks: {told}");
        listed.insert(name);
    }
    let unlisted: Vec<_> = shown.iter().filter(|name| !listed.contains(&***name)).collect();
    assert!(unlisted.is_empty(), "not in differences.txt: {unlisted:?}");
}
