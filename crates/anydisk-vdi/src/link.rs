//! Changing what the header says of the image: its parent, its names, its geometry.

use std::sync::Arc;

use anydisk_core::{
    Access, AmendRequest, BackingLink, ImageWrite, OptionKind, OptionSpec, Options, Reference,
    Result, Storage, Uuid,
};

use crate::create::{given, parent_uuids};
use crate::guard::read_only;
use crate::header::{Geometry, Header, Kind, Version, unsupported};
use crate::image::{VdiImage, header_bytes};
use crate::state::HeaderState;

/// What can be changed of an image that exists.
pub(crate) const AMEND_OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "comment",
        help: "text for people, up to 255 bytes",
        kind: OptionKind::Text,
        default: None,
    },
    OptionSpec {
        name: "lchs",
        help: "geometry that the guest's firmware sees: cylinders,heads,sectors as C/H/S; 0/0/0: \
               the machine chooses",
        kind: OptionKind::Text,
        default: None,
    },
    OptionSpec {
        name: "uuid",
        help: "the image's UUID, or `random`: a copy needs another one. Children of the image no \
               longer find it",
        kind: OptionKind::Text,
        default: None,
    },
    OptionSpec {
        name: "uuid_modify",
        help: "the UUID of the image's content, or `random`",
        kind: OptionKind::Text,
        default: None,
    },
];

/// What a header is to say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    pub(crate) comment: Option<String>,
    pub(crate) lchs: Option<Geometry>,
    pub(crate) create: Option<Uuid>,
    pub(crate) modify: Option<Uuid>,
}

impl Changes {
    fn of(options: &Options) -> Result<Self> {
        let comment = options.text("comment").map(str::to_owned);
        if comment.as_ref().is_some_and(|text| text.len() > 255 || text.contains('\0')) {
            return Err(options.refuse("comment", "255 bytes of text at most"));
        }
        let lchs = match options.text("lchs") {
            Some(text) => {
                let refuse = || options.refuse("lchs", "three numbers, such as 1024/16/63");
                Some(geometry(text).ok_or_else(refuse)?)
            }
            None => None,
        };
        let uuid = |name| match options.text(name) {
            Some("random") => Ok(Some(Uuid::random())),
            _ => given(options, name),
        };
        Ok(Self { comment, lchs, create: uuid("uuid")?, modify: uuid("uuid_modify")? })
    }
}

fn geometry(text: &str) -> Option<Geometry> {
    let mut numbers = text.split('/').map(|part| part.parse::<u32>().ok());
    let mut next = || numbers.next().flatten();
    let geometry = Geometry { cylinders: next()?, heads: next()?, sectors: next()? };
    numbers.next().is_none().then_some(geometry)
}

/// Changes the header of an image.
///
/// # Errors
/// `Option` for values that cannot be, `ReadOnly`, what the header says, and those of the store.
pub(crate) fn amend(request: &AmendRequest<'_>) -> Result<()> {
    let changes = Changes::of(request.options)?;
    let store = Arc::clone(&request.open.store);
    if request.open.access != Access::ReadWrite || !store.is_writable() {
        return Err(read_only("it was opened for reading"));
    }
    let mut bytes = header_bytes(&*store)?;
    let header = Header::parse(&bytes, store.len()?)?;
    bytes.truncate(header.len);
    HeaderState::new(bytes, &header, true).amend(&changes, &*store)?;
    Ok(store.flush()?)
}

impl BackingLink for VdiImage {
    fn set_backing(&self, backing: Option<&Reference>) -> Result<()> {
        if self.header.kind == Kind::Fixed && backing.is_some() {
            return Err(unsupported("a fixed image over another one"));
        }
        if self.header.version == Version::Old {
            return Err(unsupported("another parent for an image of version 0"));
        }
        let (linkage, parent_modify) = match backing {
            // Where its content is not known, the parent's is not compared.
            Some(parent) => {
                let (create, modify) = parent_uuids(parent)?;
                (create, modify.unwrap_or(Uuid::NIL))
            }
            None => (Uuid::NIL, Uuid::NIL),
        };
        let store = &**self.table.store();
        self.state.set_parent(linkage, parent_modify, store)?;
        Ok(store.flush()?)
    }

    fn check_emptying(&self) -> Result<()> {
        match self.state.uuids().linkage.is_nil() {
            true => Err(unsupported("emptying an image without a parent")),
            false => Ok(()),
        }
    }

    fn forget_everything(&self) -> Result<()> {
        let still = self.table.hold_still()?;
        self.flush()?;
        self.clear_entries(&still, 0, self.table.shape().entries)?;
        self.close_gaps(&still)?;
        Ok(())
    }
}
