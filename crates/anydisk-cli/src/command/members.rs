//! `anydisk members`.

use std::collections::HashMap;
use std::ffi::OsString;

use anydisk::{Member, MemberFinding, one_line};
use clap::Args;

use crate::args::{Form, Reading};
use crate::failure::Outcome;
use crate::output;
use crate::output::json::{self, Object, Value};
use crate::output::{findings, human};

const EXAMPLES: &str = "\
Examples:
  anydisk members disk.qcow2
  anydisk members --output=json a.vmdk b.vmdk      (the disks of one machine)
  anydisk members box.ova
  anydisk convert --member vg0/root -O qcow2 a.vmdk b.vmdk root.qcow2";

/// Lists what lies in disks: packages, partitions, volume groups.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Members {
    /// The format of the files, instead of looking at their bytes
    #[arg(short, long)]
    format: Option<String>,
    /// What to print
    #[arg(long, value_enum, default_value = "human")]
    output: Form,
    /// The disks of one machine
    #[arg(required = true)]
    files: Vec<OsString>,
    #[command(flatten)]
    reading: Reading,
}

impl Members {
    pub(crate) fn run(self) -> Outcome {
        let inside = self.reading.inside(&self.files, self.format.as_deref(), false)?;
        let members = inside.members();
        let text = match self.output {
            Form::Human => tree(members),
            Form::Json => {
                let list = members.iter().map(|member| value(member, inside.findings()));
                json::document(&Value::List(list.collect()))
            }
        };
        output::print(&text)?;
        Ok(0)
    }
}

/// A line for each member, each behind what it belongs to and further to the right.
fn tree(members: &[Member]) -> String {
    let mut below = Below::new();
    for member in members {
        below.entry(member.parent.as_deref()).or_default().push(member);
    }
    let mut lines = Vec::new();
    for member in below.get(&None).into_iter().flatten() {
        add(&below, member, 0, &mut lines);
    }
    let width = |column: fn(&[String; 4]) -> &String| {
        lines.iter().map(|line| column(line).chars().count()).max().unwrap_or(0)
    };
    let (path, kind, size) =
        (width(|line| &line[0]), width(|line| &line[1]), width(|line| &line[2]));
    let line = |[name, what, bytes, note]: &[String; 4]| {
        let text = format!("{name:path$}  {what:kind$}  {bytes:>size$}  {note}");
        text.trim_end().to_owned() + "\n"
    };
    lines.iter().map(line).collect()
}

/// Deeper trees than this are not made.
const DEPTH: usize = 16;

/// Members by the path of what they belong to. A group may have many thousand volumes: they are not
/// looked for among all members.
type Below<'m> = HashMap<Option<&'m str>, Vec<&'m Member>>;

/// Adds a member and all that is below it.
fn add(below: &Below<'_>, member: &Member, depth: usize, lines: &mut Vec<[String; 4]>) {
    let kind = match &member.format {
        Some(format) => format!("{} ({format})", member.kind),
        None => member.kind.clone().into_owned(),
    };
    lines.push([
        format!("{}{}", "  ".repeat(depth), one_line(&member.path)),
        kind,
        member.size.map(human::size).unwrap_or_default(),
        member.note.as_deref().map(one_line).unwrap_or_default(),
    ]);
    if depth < DEPTH {
        for child in below.get(&Some(member.path.as_str())).into_iter().flatten() {
            add(below, child, depth + 1, lines);
        }
    }
}

fn value(member: &Member, found: &[MemberFinding]) -> Value {
    let own: Vec<_> = found.iter().filter(|finding| finding.path == member.path).collect();
    let own = (!own.is_empty()).then(|| findings::of_package(own));
    Object::default()
        .with("path", member.path.as_str())
        .with("kind", &*member.kind)
        .with_any("size", member.size)
        .with_any("format", member.format.as_deref())
        .with_any("parent", member.parent.as_deref())
        .with_any("note", member.note.as_deref())
        .with_any("findings", own)
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_for_a_tree_is_in_proportion_to_its_members() {
        let volume = |number: u32| {
            let mut member = Member::new(format!("vg/{number}"), "logical volume (linear)");
            member.parent = Some("vg".into());
            member
        };
        let group = Member::new("vg", "volume group");
        let members: Vec<_> = std::iter::once(group).chain((0..100_000).map(volume)).collect();
        let start = std::time::Instant::now();
        assert_eq!(tree(&members).lines().count(), 100_001);
        // Looking for each among all of them would take minutes.
        assert!(start.elapsed().as_secs() < 10, "took {:?}", start.elapsed());
    }

    #[test]
    fn control_characters_in_names_and_notes_are_told_and_not_obeyed() {
        let mut member = Member::new("a\u{1b}[31m", "disk");
        member.note = Some("one\nb.raw  disk".into());
        assert_eq!(tree(&[member]), "a\\u{1b}[31m  disk    one\\nb.raw  disk\n");
    }

    #[test]
    fn a_member_stands_behind_what_it_belongs_to_and_further_right() {
        let mut disk = Member::new("a.raw", "disk");
        disk.size = Some(1 << 30);
        disk.format = Some("raw".into());
        let mut part = Member::new("a.raw/1", "partition (Linux)");
        part.parent = Some("a.raw".into());
        part.note = Some("name: one".into());
        let group = Member::new("vg", "volume group");
        let text = "a.raw      disk (raw)         1 GiB\n  \
                    a.raw/1  partition (Linux)         name: one\n\
                    vg         volume group\n";
        assert_eq!(tree(&[group.clone(), part.clone(), disk.clone()]).lines().count(), 3);
        assert_eq!(tree(&[disk, part, group]), text);
    }
}
