//! What `info` shows, under the names that qemu-img has for it.

use anydisk_core::{Detail, DetailValue};
use anydisk_crypto::luks::{Field, LuksInfo};

pub(crate) fn details(header: &LuksInfo, detached: bool) -> Vec<Detail> {
    header.fields(detached, None).into_iter().map(detail).collect()
}

fn detail((name, field): (&'static str, Field)) -> Detail {
    let value = match field {
        Field::Flag(flag) => DetailValue::Flag(flag),
        Field::Number(number) => DetailValue::Number(number),
        Field::Text(text) => DetailValue::Text(text),
        Field::List(groups) => DetailValue::List(
            groups
                .into_iter()
                .map(|group| DetailValue::Map(group.into_iter().map(detail).collect()))
                .collect(),
        ),
    };
    Detail { name, value }
}
