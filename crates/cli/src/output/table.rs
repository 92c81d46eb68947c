//! Tables whose columns line up.

use super::stdout::{Colour, Paint};

/// On which side a column's short cells are filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Rows of cells under headings.
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<Cell>>,
}

/// A cell's text and, on a terminal, its colour.
pub(crate) struct Cell {
    text: String,
    paint: Option<Paint>,
}

impl Cell {
    pub(crate) fn painted(text: impl Into<String>, paint: Paint) -> Self {
        Self { text: text.into(), paint: Some(paint) }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), paint: None }
    }
}

impl Table {
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; cells beyond the columns are dropped, missing ones are empty.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let mut cells: Vec<Cell> = cells.into_iter().collect();
        cells.resize_with(self.columns.len(), || Cell::from(""));
        self.rows.push(cells);
    }

    /// The table as text, two blanks between columns and none at the ends of lines.
    pub(crate) fn render(&self, colour: Colour) -> String {
        let mut widths: Vec<usize> = self.columns.iter().map(|(name, _)| width(name)).collect();
        for row in &self.rows {
            for (cell, column) in row.iter().zip(&mut widths) {
                *column = (*column).max(width(&cell.text));
            }
        }
        let heading: Vec<Cell> =
            self.columns.iter().map(|(name, _)| Cell::painted(*name, Paint::Heading)).collect();
        let mut text = String::new();
        for row in std::iter::once(&heading).chain(&self.rows) {
            self.render_row(row, &widths, colour, &mut text);
        }
        text
    }

    fn render_row(&self, row: &[Cell], widths: &[usize], colour: Colour, text: &mut String) {
        let last = row.iter().rposition(|cell| !cell.text.is_empty());
        for (at, cell) in row.iter().enumerate() {
            if last.is_none_or(|last| at > last) {
                break;
            }
            let column = (self.columns.get(at), widths.get(at));
            let (Some((_, align)), Some(wide)) = column else { break };
            let fill = " ".repeat(wide.saturating_sub(width(&cell.text)));
            let shown = match cell.paint {
                Some(paint) => colour.paint(paint, &cell.text),
                None => cell.text.clone(),
            };
            if at > 0 {
                text.push_str("  ");
            }
            match align {
                Align::Right => text.extend([fill.as_str(), &shown]),
                Align::Left if Some(at) == last => text.push_str(&shown),
                Align::Left => text.extend([shown.as_str(), &fill]),
            }
        }
        text.push('\n');
    }
}

/// Columns a text takes, one for each character.
fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_with_and_without_colour() {
        let mut table =
            Table::new(&[("BACKUP", Align::Left), ("SIZE", Align::Right), ("NOTE", Align::Left)]);
        table.row(["a".into(), "1.0 MiB".into(), Cell::painted("damaged", Paint::Bad)]);
        table.row(["abcdefgh".into(), "9 B".into()]);
        let plain = "BACKUP       SIZE  NOTE\na         1.0 MiB  damaged\nabcdefgh      9 B\n";
        assert_eq!(table.render(Colour::Plain), plain);
        let painted = table.render(Colour::Ansi);
        let stripped =
            painted.replace("\u{1b}[31m", "").replace("\u{1b}[1m", "").replace("\u{1b}[0m", "");
        assert_eq!(stripped, plain);
    }
}
