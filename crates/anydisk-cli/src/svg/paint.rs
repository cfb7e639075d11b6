//! The words of SVG that the drawing needs.

use std::fmt::Write;

use anydisk::one_line;
use anydisk::storage::name;

use crate::picture::Cell;

/// Letters of a name that are shown.
const NAME: usize = 110;

/// A drawing that grows downward.
#[derive(Debug)]
pub(super) struct Paint {
    out: String,
    width: usize,
    y: usize,
}

/// The text without what SVG or a reader would take for more, and not too long.
pub(super) fn text_of(text: &str) -> String {
    // A file of text has no place for names that are none.
    let plain = one_line(&String::from_utf8_lossy(&name::bytes(text)));
    let letters = plain.chars().count();
    // The end of a path tells more than its beginning.
    let shown = plain.chars().skip(letters.saturating_sub(NAME));
    let mut out = String::from(if letters > NAME { "…" } else { "" });
    for letter in shown {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // Code points that XML 1.0 does not allow.
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            letter => out.push(letter),
        }
    }
    out
}

impl Paint {
    pub(super) fn new(width: usize) -> Self {
        Self { out: String::new(), width, y: 0 }
    }

    /// How far down it has grown.
    pub(super) fn y(&self) -> usize {
        self.y
    }

    pub(super) fn down(&mut self, by: usize) {
        self.y += by;
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        self.out.write_fmt(text).expect("a string takes any text");
    }

    pub(super) fn heading(&mut self, name: &str, facts: &str) {
        let (name, facts) = (text_of(name), text_of(facts));
        self.write(format_args!("<text x=\"24\" y=\"34\" class=\"h\">{name}</text>\n"));
        self.write(format_args!("<text x=\"24\" y=\"54\">{facts}</text>\n"));
        self.y = 62;
    }

    pub(super) fn section(&mut self, title: &str) {
        self.y += 30;
        let (y, title) = (self.y, text_of(title));
        self.write(format_args!("<text x=\"24\" y=\"{y}\" class=\"s\">{title}</text>\n"));
        self.y += 10;
    }

    /// Small text at a place; `anchor`: which end of it is there.
    pub(super) fn label(&mut self, [x, y]: [usize; 2], anchor: &str, text: &str) {
        let text = text_of(text);
        self.write(format_args!(
            "<text x=\"{x}\" y=\"{y}\" class=\"l\" text-anchor=\"{anchor}\">{text}</text>\n"
        ));
    }

    /// A line of small text, and down.
    pub(super) fn note(&mut self, x: usize, text: &str) {
        self.y += 12;
        self.label([x, self.y], "start", text);
        self.y += 6;
    }

    /// A colour and what it means, and down.
    pub(super) fn swatch(&mut self, x: usize, kind: Cell, text: &str) {
        let mut runs = Runs::default();
        runs.add(kind, [x, self.y + 4], [24, 12]);
        runs.draw(self);
        self.label([x + 34, self.y + 14], "start", text);
        self.y += 20;
    }

    /// An empty frame.
    pub(super) fn frame(&mut self, [x, y]: [usize; 2], [width, height]: [usize; 2]) {
        self.write(format_args!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" class=\"f\"/>\n"
        ));
    }

    /// The file: a title and a description for those who do not see it, styles, and what was drawn.
    pub(super) fn finish(self, title: &str, description: &str) -> String {
        let (width, height) = (self.width, self.y + 24);
        let title = text_of(title);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" role=\"img\" aria-labelledby=\"t d\">\n\
             <title id=\"t\">{title}</title>\n<desc id=\"d\">{description}</desc>\n{STYLE}\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{}</svg>\n",
            self.out
        )
    }
}

const STYLE: &str = "\
<defs>
<pattern id=\"hatch\" width=\"4\" height=\"4\" patternUnits=\"userSpaceOnUse\">
<rect width=\"4\" height=\"4\" fill=\"#e69f00\"/>
<path d=\"M0 4L4 0\" stroke=\"#7a4a00\"/>
</pattern>
</defs>
<style>
text{font:13px system-ui,sans-serif;fill:#222}
.h{font-size:20px;font-weight:600}
.s{font-size:14px;font-weight:600}
.l{font-size:11px;fill:#444}
.f{fill:#fafafa;stroke:#999}
.data{fill:#0072b2}
.packed{fill:url(#hatch)}
.below{fill:#009e73}
.lower{fill:#56b4e9}
.zero{fill:#cfcfcf}
.nothing{fill:#eee}
</style>
";

fn class(kind: Cell) -> &'static str {
    match kind {
        Cell::Data => "data",
        Cell::Packed => "packed",
        Cell::Below => "below",
        Cell::Lower => "lower",
        Cell::Zero => "zero",
        Cell::Nothing => "nothing",
    }
}

/// Rectangles, joined where they stand side by side.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// In the order in which they lie one over the other.
    rects: Vec<(Cell, [usize; 2], [usize; 2])>,
}

impl Runs {
    pub(super) fn add(&mut self, kind: Cell, at: [usize; 2], size: [usize; 2]) {
        let goes_on = |(last, [x, y], [width, height]): &(Cell, [usize; 2], [usize; 2])| {
            *last == kind && *y == at[1] && *height == size[1] && x + width == at[0]
        };
        // The ground of a cell and its data come in turn.
        let recent = self.rects.iter_mut().rev().take(2);
        match recent.into_iter().find(|rect| goes_on(rect)) {
            Some((_, _, old)) => old[0] += size[0],
            None => self.rects.push((kind, at, size)),
        }
    }

    /// Draws what is weaker first: it is the ground for the rest.
    pub(super) fn draw(&self, paint: &mut Paint) {
        for (kind, _) in Cell::ALL.into_iter().rev() {
            let mut path = String::new();
            for (_, [x, y], [width, height]) in self.rects.iter().filter(|rect| rect.0 == kind) {
                write!(path, "M{x} {y}h{width}v{height}h-{width}z").expect("a string");
            }
            if !path.is_empty() {
                paint.write(format_args!("<path class=\"{}\" d=\"{path}\"/>\n", class(kind)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_strangers_are_text_and_nothing_else() {
        assert_eq!(text_of("<a href=\"x\">&\u{1b}"), "&lt;a href=&quot;x&quot;&gt;&amp;\\u{1b}");
        let long = text_of(&"x".repeat(500));
        assert_eq!((long.chars().count(), long.chars().next()), (NAME + 1, Some('…')));
    }

    #[test]
    fn rectangles_side_by_side_become_one() {
        let mut runs = Runs::default();
        for x in 0..3 {
            runs.add(Cell::Zero, [x * 8, 0], [8, 12]);
            runs.add(Cell::Data, [x * 8, 6], [8, 6]);
        }
        let mut paint = Paint::new(10);
        runs.draw(&mut paint);
        assert_eq!(
            paint.out,
            "<path class=\"zero\" d=\"M0 0h24v12h-24z\"/>\n<path class=\"data\" d=\"M0 6h24v6h-24z\"/>\n"
        );
    }
}
