//! What a check found, as JSON.

use anydisk::{Finding, MemberFinding};

use super::json::{Object, Value};

/// A finding: how bad, of which kind, where in the file, what it costs on the disk, what a repair
/// does about it.
pub(crate) fn value(finding: &Finding) -> Value {
    let guest = finding.guest.map(|guest| {
        Object::default().with("start", guest.start().get()).with("length", guest.len())
    });
    Object::default()
        .with("severity", finding.severity.word())
        .with("kind", finding.kind)
        .with("at", finding.at.get())
        .with("text", finding.text.as_str())
        .with_any("guest", guest)
        .with_any("remedy", finding.remedy.as_deref())
        .with("repaired", finding.repaired)
        .into()
}

/// What should be known of a package, for JSON.
pub(crate) fn of_package<'a>(findings: impl IntoIterator<Item = &'a MemberFinding>) -> Vec<Value> {
    let value = |finding: &MemberFinding| {
        let object = Object::default().with("member", finding.path.as_str());
        object.with("kind", finding.kind).with("text", finding.text.as_str()).into()
    };
    findings.into_iter().map(value).collect()
}
