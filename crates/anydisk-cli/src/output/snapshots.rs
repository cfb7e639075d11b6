//! Snapshots as qemu-img lists them.

use std::fmt::Write;

use anydisk::storage::name;
use anydisk::{SnapshotInfo, one_line};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::human;
use super::json::{Object, Value};

/// The table; nothing at all where there are no snapshots.
pub(crate) fn table(snapshots: &[SnapshotInfo]) -> String {
    let mut text = String::new();
    if snapshots.is_empty() {
        return text;
    }
    text.push_str("Snapshot list:\n");
    let mut row = |cells: [&str; 6]| {
        let [id, tag, size, date, clock, icount] = cells;
        let (id, tag) = (padded(id, 7), padded(tag, 16));
        writeln!(text, "{id} {tag} {size:>8} {date:>19} {clock:>15} {icount:>10}")
            .expect("a string takes any text");
    };
    row(["ID", "TAG", "VM_SIZE", "DATE", "VM_CLOCK", "ICOUNT"]);
    let zone = TimeZone::system();
    for info in snapshots {
        let icount = info.icount.map_or_else(|| "--".into(), |count| count.to_string());
        let size = human::size(info.vm_state_size);
        row([&info.id, &info.name, &size, &date(info, &zone), &clock(info.vm_clock), &icount]);
    }
    text
}

/// A stranger's text with blanks behind it up to a width, in bytes as C has it.
fn padded(text: &str, width: usize) -> String {
    let line = one_line(text);
    let blanks = width.saturating_sub(name::bytes(&line).len());
    line + &" ".repeat(blanks)
}

/// In local time, as people who look for a snapshot think of it.
fn date(info: &SnapshotInfo, zone: &TimeZone) -> String {
    let seconds = i64::try_from(info.date.0).unwrap_or(0);
    let moment = Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH);
    moment.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn clock(nanoseconds: u64) -> String {
    let milliseconds = nanoseconds / 1_000_000;
    let seconds = milliseconds / 1000;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{hours:04}:{minutes:02}:{:02}.{:03}", seconds % 60, milliseconds % 1000)
}

/// The list, as a member of `info`, which has none where there are no snapshots.
pub(crate) fn value(snapshots: &[SnapshotInfo]) -> Option<Value> {
    (!snapshots.is_empty()).then(|| list(snapshots))
}

/// The list.
pub(crate) fn list(snapshots: &[SnapshotInfo]) -> Value {
    let one = |info: &SnapshotInfo| {
        Object::default()
            .with_any("icount", info.icount)
            .with("vm-clock-nsec", info.vm_clock % 1_000_000_000)
            .with("name", info.name.as_str())
            .with("date-sec", info.date.0)
            .with("date-nsec", u64::from(info.date.1))
            .with("vm-clock-sec", info.vm_clock / 1_000_000_000)
            .with("id", info.id.as_str())
            .with("vm-state-size", info.vm_state_size)
            .into()
    };
    Value::List(snapshots.iter().map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_a_machine_has_hours_of_four_digits_and_milliseconds() {
        assert_eq!(clock(0), "0000:00:00.000");
        assert_eq!(clock(3_723_004_000_000), "0001:02:03.004");
    }
}
