//! Columns of text, for lists that people read. Pure.

use super::text::escape;

/// The rows under their headings, each column as wide as its widest cell, the
/// last one without padding. Ends with a line break.
#[must_use]
pub fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let head = headings.map(str::to_owned);
    let rows: Vec<[String; N]> = std::iter::once(&head)
        .chain(rows)
        .map(|row| row.each_ref().map(|cell| escape(cell).into_owned()))
        .collect();
    let width = |n: usize| {
        rows.iter()
            .map(|row| row[n].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a".into(), "1\n".into()], ["längst".into(), "2".into()]];
        assert_eq!(
            table(["NAME", "N"], &rows),
            "NAME    N\na       1\\n\nlängst  2\n"
        );
        assert_eq!(table(["A", "B"], &[]), "A  B\n");
    }
}
