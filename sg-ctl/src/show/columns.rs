//! Lines whose parts stand below each other.

use std::iter;

use super::style::Style;

/// Which end of a column its texts keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    /// For numbers.
    Right,
}

/// Lines in the making.
pub(super) struct Columns<const N: usize> {
    aligns: [Align; N],
    lines: Vec<([String; N], Paint)>,
}

/// How a line looks.
pub(super) type Paint = fn(Style, &str) -> String;

impl<const N: usize> Columns<N> {
    pub(super) fn new(aligns: [Align; N]) -> Self {
        Self {
            aligns,
            lines: Vec::new(),
        }
    }

    pub(super) fn titles(aligns: [Align; N], titles: [&str; N]) -> Self {
        let mut columns = Self::new(aligns);
        columns.painted(titles.map(str::to_owned), Style::title);
        columns
    }

    pub(super) fn line(&mut self, parts: [String; N]) {
        self.painted(parts, |_, text| text.to_owned());
    }

    pub(super) fn painted(&mut self, parts: [String; N], paint: Paint) {
        self.lines.push((parts, paint));
    }

    /// The lines, each after `indent` spaces and none with spaces at its end.
    pub(super) fn finish(self, style: Style, indent: usize) -> String {
        let mut widths = [0; N];
        for (parts, _) in &self.lines {
            for (width, part) in iter::zip(&mut widths, parts) {
                *width = (*width).max(part.chars().count());
            }
        }
        let mut text = String::new();
        for (parts, paint) in &self.lines {
            let padded = iter::zip(parts, iter::zip(self.aligns, widths));
            let padded = padded.map(|(part, (align, width))| match align {
                Align::Left => format!("{part:width$}"),
                Align::Right => format!("{part:>width$}"),
            });
            let line = padded.collect::<Vec<_>>().join("  ");
            text.push_str(&" ".repeat(indent));
            text.push_str(&paint(style, line.trim_end()));
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stand_below_each_other() {
        let mut columns = Columns::new([Align::Left, Align::Right, Align::Left]);
        columns.line(["a", "1", "x"].map(str::to_owned));
        columns.line(["bb", "100", ""].map(str::to_owned));
        assert_eq!(columns.finish(Style::PLAIN, 1), " a     1  x\n bb  100\n");
    }
}
