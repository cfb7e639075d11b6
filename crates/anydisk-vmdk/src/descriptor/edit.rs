//! Changing the text. What is not meant stays byte for byte.

use anydisk_core::Result;

use crate::header::unsupported;
use crate::layout::SECTOR;

use super::{Descriptor, ExtentLine, Line, NO_CONTENT_ID, NO_PARENT, Parent};

impl Descriptor {
    /// Changes the value of a key that is there; false if it is not.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> bool {
        let line = self.lines.iter_mut().find(|line| line.is_pair(key));
        line.is_some_and(|line| line.set(value))
    }

    /// Gives the content a new number, in all places that keep it. False if there is none.
    ///
    /// A number of a few digits less (qemu leaves zeroes away) gets one as long, so that the text
    /// does not move and a crash cannot leave half of it moved.
    pub(crate) fn set_content_id(&mut self, id: u32, long: [u32; 3]) -> bool {
        let Some(digits) = self.value("CID").map(<[u8]>::len) else { return false };
        let (digits, id) = match digits {
            6 | 7 => (digits, id % (1 << (4 * digits))),
            _ => (8, id),
        };
        let [a, b, c] = long;
        // The last 8 digits of the long number are the short one.
        self.set("ddb.longContentID", &format!("{a:08x}{b:08x}{c:08x}{id:08x}"));
        self.content_id = Some(id);
        self.set("CID", &format!("{id:0digits$x}"))
    }

    /// Names another parent, or none. The name must fit in quotes.
    ///
    /// # Errors
    /// `Unsupported` for a name that the encoding of the text does not have.
    pub(crate) fn set_parent(&mut self, parent: Option<(u32, &[u8])>) -> Result<()> {
        let written = match parent {
            Some((_, name)) => self.charset.encode(name).ok_or_else(|| {
                let name = String::from_utf8_lossy(name).into_owned();
                unsupported(format!("the name {name:?} in the encoding of the descriptor"))
            })?,
            None => Vec::new(),
        };
        let id = parent.map_or(NO_PARENT, |(id, _)| id);
        self.put("parentCID", format!("parentCID={id:08x}").as_bytes(), "CID");
        match parent {
            Some(_) => {
                let text = [b"parentFileNameHint=\"", &written[..], b"\""].concat();
                self.put("parentFileNameHint", &text, "createType");
            }
            None => self.lines.retain(|line| !line.is_pair("parentFileNameHint")),
        }
        self.parent = parent.map(|(raw_content_id, name)| Parent {
            name: name.to_vec(),
            content_id: Some(raw_content_id).filter(|id| *id != NO_CONTENT_ID),
            raw_content_id,
        });
        Ok(())
    }

    /// Makes extent number `number` the last one, of `len` bytes, with those of `added` behind it,
    /// which are like it; and the geometry fit.
    pub(crate) fn set_end(&mut self, number: usize, len: u64, added: &[(u64, Vec<u8>)]) {
        let mut count = 0;
        self.lines.retain(|line| {
            count += usize::from(line.is_extent());
            !line.is_extent() || count <= number + 1
        });
        self.extents.truncate(number + 1);
        let index = self.lines.iter().rposition(Line::is_extent);
        let end = self.line_end();
        let (Some(index), Some(last)) = (index, self.extents.last_mut()) else { return };
        let last_line = &mut self.lines[index];
        last_line.set_word(1, &(len / SECTOR).to_string());
        last_line.end_with(end);
        last.len = len;
        let (like, template) = (last_line.clone(), last.clone());
        for (place, (len, name)) in added.iter().enumerate() {
            let mut line = like.clone();
            line.set_word(1, &(len / SECTOR).to_string());
            // It has the characters of the last one's.
            let written = self.charset.encode(name).unwrap_or_else(|| name.clone());
            line.set_quoted(&written);
            self.lines.insert(index + 1 + place, line);
            let name = name.clone();
            self.extents.push(ExtentLine { len: *len, name, written, ..template.clone() });
        }
        self.fit_geometry();
    }

    /// Makes the cylinders fit the size.
    fn fit_geometry(&mut self) {
        let number = |key: &str| {
            let text = std::str::from_utf8(self.value(key)?).ok()?;
            text.parse::<u64>().ok().filter(|number| *number > 0)
        };
        let sectors = self.extents.iter().map(|extent| extent.len / SECTOR).sum::<u64>();
        let (heads, each) = (number("ddb.geometry.heads"), number("ddb.geometry.sectors"));
        if let Some(cylinder) = heads.zip(each).and_then(|(heads, each)| heads.checked_mul(each)) {
            self.set("ddb.geometry.cylinders", &(sectors / cylinder).to_string());
        }
    }

    /// Puts a line in the place of that of its key; else behind the line of the key `after`, or in
    /// front of the first extent.
    fn put(&mut self, key: &str, text: &[u8], after: &str) {
        let line = Line::new(text, self.line_end());
        let find = |wanted: &str| self.lines.iter().position(|line| line.is_pair(wanted));
        if let Some(index) = find(key) {
            self.lines[index] = line;
            return;
        }
        let extent = || self.lines.iter().position(Line::is_extent);
        let index = find(after).map(|index| index + 1).or_else(extent);
        let end = self.line_end();
        if let Some(last) = self.lines.last_mut() {
            last.end_with(end);
        }
        self.lines.insert(index.unwrap_or(self.lines.len()), line);
    }

    /// How lines end here.
    fn line_end(&self) -> &'static [u8] {
        match self.lines.first() {
            Some(line) if line.bytes().ends_with(b"\r\n") => b"\r\n",
            _ => b"\n",
        }
    }

    /// The text, byte for byte.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.lines.iter().flat_map(|line| line.bytes().iter().copied()).collect()
    }
}
