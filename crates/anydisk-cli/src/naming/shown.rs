//! Names as qemu-img shows them.

use anydisk::node::{Child, Node, Scalar};
use anydisk::storage::name;

use crate::output::json::{Object, Value};

/// The name as qemu-img shows it: that of the file where it says all, else `json:{...}`.
pub(crate) fn shown(node: &Node) -> String {
    match is_plain(node) {
        true => {
            let path = node.path();
            let is_colon_in_name = super::protocol(path).is_some() && !is_of_null(node);
            let before = if is_colon_in_name { "./" } else { "" };
            format!("{before}{}", name::of(path))
        }
        false => format!("json:{}", Value::Object(object(node)).in_one_line()),
    }
}

/// Whether the name of the file says all but the format.
fn is_plain(node: &Node) -> bool {
    let over_file = match &node.child {
        Child::File(_) => true,
        Child::Node(child) => child.is_file() && is_plain(child),
    };
    over_file && node.header.is_none() && node.strong_options().next().is_none()
}

/// Whether there is no file at all.
fn is_of_null(node: &Node) -> bool {
    match &node.child {
        Child::File(_) => node.null_driver().is_some(),
        Child::Node(child) => is_of_null(child),
    }
}

fn object(node: &Node) -> Object {
    let mut shown = Object::default();
    for (name, option) in node.strong_options() {
        shown = shown.with(name.to_owned(), value(option));
    }
    shown = shown.with_any("driver", node.driver.as_deref());
    shown = shown.with_any("header", node.header.as_deref().map(object));
    match &node.child {
        Child::File(_) if node.null_driver().is_some() => shown,
        Child::File(name) => shown.with("filename", name::of(name).into_owned()),
        Child::Node(child) => shown.with("file", object(child)),
    }
}

fn value(option: &Scalar) -> Value {
    match option {
        Scalar::Null => Value::from("null"),
        Scalar::Flag(flag) => Value::Flag(*flag),
        Scalar::Number(number) => Value::Number(*number),
        Scalar::Text(text) => Value::Text(name::of(text).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shown_as_options_only_where_it_must() {
        let node = |text: &str| Node::from_json(text.as_bytes()).unwrap();
        assert_eq!(shown(&node(r#"{"driver": "qcow2", "file.filename": "a"}"#)), "a");
        let name =
            r#"{"driver": "qcow2", "file": {"driver": "raw", "offset": "1k", "filename": "a"}}"#;
        assert_eq!(
            shown(&node(name)),
            "json:{\"driver\": \"qcow2\", \"file\": {\"offset\": \"1k\", \"driver\": \"raw\", \
             \"file\": {\"driver\": \"file\", \"filename\": \"a\"}}}"
        );
    }
}
