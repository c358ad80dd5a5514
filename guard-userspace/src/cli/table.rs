//! Aligned columns of text.

use std::fmt;

/// A column's heading, and the side its cells keep to.
#[derive(Clone, Copy)]
pub(crate) enum Column {
    Left(&'static str),
    Right(&'static str),
}

impl Column {
    const fn heading(self) -> &'static str {
        match self {
            Self::Left(heading) | Self::Right(heading) => heading,
        }
    }
}

/// Rows under headings; displays with a line end after each.
///
/// The rows are made twice, to measure and to print them, so that a million are never in memory.
pub(crate) struct Table<const N: usize, Rows> {
    pub(crate) columns: [Column; N],
    pub(crate) rows: Rows,
}

impl<const N: usize, Rows: Iterator<Item = [String; N]> + Clone> Table<N, Rows> {
    fn widths(&self) -> [usize; N] {
        let mut widths = self.columns.map(|column| column.heading().len());
        for row in self.rows.clone() {
            for (width, cell) in widths.iter_mut().zip(&row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        widths
    }

    fn line<'a>(
        &self,
        f: &mut fmt::Formatter<'_>,
        widths: &[usize; N],
        cells: impl IntoIterator<Item = &'a str>,
    ) -> fmt::Result {
        let mut line = String::new();
        for ((column, width), cell) in self.columns.iter().zip(widths).zip(cells) {
            line.push_str(&match column {
                Column::Left(_) => format!("{cell:<width$}  "),
                Column::Right(_) => format!("{cell:>width$}  "),
            });
        }

        writeln!(f, "{}", line.trim_end())
    }
}

impl<const N: usize, Rows> fmt::Display for Table<N, Rows>
where
    Rows: Iterator<Item = [String; N]> + Clone,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        self.line(f, &widths, self.columns.map(Column::heading))?;
        for row in self.rows.clone() {
            self.line(f, &widths, row.iter().map(String::as_str))?;
        }

        Ok(())
    }
}
