//! What images name below themselves.

use std::ffi::OsStr;

use anydisk_core::{Located, Reference, Role, Said, SaidBelow};
use serde_json::{Map, Value};

use super::{Below, Child, NameError, Node, Scalar, flat, unclear};

impl Node {
    /// Reads the text behind `json:`.
    ///
    /// # Errors
    /// What is missing, or not understood.
    pub fn from_json(text: &[u8]) -> Result<Self, NameError> {
        let parsed = flat(text);
        let flat =
            parsed.map_err(|why| unclear(format!("Could not parse the JSON options: {why}")))?;
        Self::parse(flat)
    }

    /// What a name inside an image stands for; `format`: what the image says beside the name, which
    /// counts more. `None` if it is the plain name of a file.
    ///
    /// # Errors
    /// What is not understood, and whatever is more than images in files or in parts of them: images
    /// in images.
    pub fn in_image(name: &[u8], format: Option<&str>) -> Result<Option<Self>, NameError> {
        let node = match name.strip_prefix(b"json:") {
            Some(text) => Self::from_json(text)?,
            None => match Self::null(name) {
                Some(node) => node,
                None => return Ok(None),
            },
        };
        let node = node.read_as(format);
        node.check()?;
        node.check_is_in_file()?;
        Ok(Some(node))
    }

    /// Fails unless it lies in a file or a part of one, and so the images below.
    fn check_is_in_file(&self) -> Result<(), NameError> {
        if let Child::Node(child) = &self.child {
            child.check_is_file()?;
        }
        if self.header.is_some() {
            return Err(unclear(
                "the name of an image inside another names no header apart from it",
            ));
        }
        if self.data_file.is_some() {
            return Err(unclear(
                "the name of an image inside another names no data file in place of its own",
            ));
        }
        match &self.backing {
            Below::AsNamed | Below::Nothing => Ok(()),
            Below::Node(below) => below.check_is_in_file(),
            Below::Further(_) => Err(unclear(
                "the name of an image says of the one below it which it is, or nothing",
            )),
        }
    }

    /// Fails unless it is a file or a part of one.
    fn check_is_file(&self) -> Result<(), NameError> {
        match &self.child {
            _ if self.backing != Below::AsNamed => Err(unclear("a file has no image below it")),
            _ if self.is_file() => Ok(()),
            Child::Node(child) if self.driver.as_deref() == Some("raw") => child.check_is_file(),
            _ => Err(unclear("the name of an image inside another names no image in an image")),
        }
    }

    /// The disk without a file that it lies in, if it does.
    ///
    /// # Errors
    /// A size that is none.
    pub(crate) fn null_below(&self) -> Result<Option<Located>, NameError> {
        match &self.child {
            Child::File(_) => self.as_null(),
            Child::Node(child) => child.null_below(),
        }
    }

    /// The part of its file that the image lies in.
    ///
    /// # Errors
    /// A part that is not there.
    pub(crate) fn part_of(&self, file: Located) -> Result<Located, NameError> {
        let file = match &self.child {
            Child::File(_) => file,
            Child::Node(child) => child.part_of(file)?,
        };
        self.window(file)
    }

    /// What it says of the image, beside where that lies.
    pub(crate) fn said(&self) -> Said {
        let format = if self.is_file() { Some("raw".to_owned()) } else { self.driver.clone() };
        let mut said = Said::format(format);
        let secret =
            |(option, id): (&str, &OsStr)| (option.to_owned(), id.to_string_lossy().into_owned());
        said.secrets = self.secrets().map(secret).collect();
        said.below = match &self.backing {
            Below::AsNamed | Below::Further(_) => SaidBelow::AsNamed,
            Below::Nothing => SaidBelow::Nothing,
            Below::Node(below) => SaidBelow::Image(Box::new(below.reference())),
        };
        said
    }

    /// As an image would name it that lies above.
    fn reference(&self) -> Reference {
        Reference::new(Role::Backing, format!("json:{}", Value::Object(self.to_json())))
    }

    fn to_json(&self) -> Map<String, Value> {
        let value = |scalar: &Scalar| match scalar {
            Scalar::Null => Value::Null,
            Scalar::Flag(flag) => (*flag).into(),
            Scalar::Number(number) => (*number).into(),
            Scalar::Text(text) => text.to_string_lossy().into(),
        };
        let options = self.options.iter().map(|(name, scalar)| (name.clone(), value(scalar)));
        let mut object: Map<_, _> = options.collect();
        object.extend(self.driver.iter().map(|driver| ("driver".into(), driver.as_str().into())));
        match &self.child {
            Child::File(name) => object.insert("filename".into(), name.to_string_lossy().into()),
            Child::Node(node) => object.insert("file".into(), node.to_json().into()),
        };
        match &self.backing {
            Below::AsNamed | Below::Further(_) => None,
            Below::Nothing => object.insert("backing".into(), Value::Null),
            Below::Node(node) => object.insert("backing".into(), node.to_json().into()),
        };
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_inside_an_image_is_that_of_an_image_in_a_file_and_no_more() {
        let named = |name: &str| {
            let found = Node::in_image(name.as_bytes(), None).map_err(|error| error.to_string())?;
            Ok::<_, String>(found.map(|node| node.path().to_owned()))
        };
        assert_eq!(named("a"), Ok(None));
        for name in [
            r#"json:{"driver": "qcow2", "file.filename": "a"}"#,
            r#"json:{"filename": "a"}"#,
            r#"json:{"driver": "file", "filename": "a"}"#,
            r#"json:{"driver": "vmdk", "file": {"driver": "raw", "offset": 5, "file.filename": "a"}}"#,
            r#"json:{"filename": "a", "backing": null}"#,
            r#"json:{"driver": "luks", "key-secret": "s", "filename": "a"}"#,
            r#"json:{"filename": "a", "backing": {"driver": "raw", "filename": "b"}}"#,
        ] {
            assert_eq!(named(name), Ok(Some("a".into())), "{name}");
        }
        for (name, why) in [
            (r#"json:{"#, "Could not parse the JSON options"),
            (r#"json:{"driver": "nbd", "host": "a"}"#, "Unknown driver 'nbd'"),
            (r#"json:{"driver": "raw", "file": {"driver": "nbd", "host": "a"}}"#, "Unknown driver"),
            (r#"json:{"driver": "raw"}"#, "must be specified"),
            (r#"json:{"filename": "a", "backing": {"driver": "raw"}}"#, "which it is"),
            (r#"json:{"file": {"driver": "qcow2", "file.filename": "a"}}"#, "no image in an image"),
            (
                r#"json:{"filename": "a", "backing": {"file": {"driver": "qcow2", "file.filename": "a"}}}"#,
                "no image in an image",
            ),
            (r#"json:{"driver": "qcow2", "offset": 1, "filename": "a"}"#, "does not support"),
        ] {
            assert!(named(name).is_err_and(|found| found.contains(why)), "{name}: {why}");
        }
        let format_counts_more =
            Node::in_image(br#"json:{"driver": "raw", "filename": "a"}"#, Some("vdi"));
        assert_eq!(format_counts_more.unwrap().unwrap().driver.as_deref(), Some("vdi"));
    }

    #[test]
    fn an_image_below_is_named_as_it_was_read() {
        let below = r#"{"driver": "luks", "key-secret": "s", "backing": null, "file": {"driver": "raw", "offset": 512, "file.filename": "b\"c"}}"#;
        let name = format!(r#"json:{{"filename": "a", "backing": {below}}}"#);
        let said = Node::in_image(name.as_bytes(), None).unwrap().unwrap().said();
        let SaidBelow::Image(reference) = said.below else { panic!("{said:?}") };
        let node = Node::in_image(&reference.name, None).unwrap().unwrap();
        assert_eq!(node, Node::from_json(below.as_bytes()).unwrap());
        assert_eq!(node.said().secrets, [("key-secret".to_owned(), "s".to_owned())]);
        assert_eq!(node.said().below, SaidBelow::Nothing);
    }
}
