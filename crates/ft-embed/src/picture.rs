//! Embeddings as SVG pictures: points of a plane in groups, and similarities as colours.

use std::fmt::Write;

/// Okabe and Ito's colours, which most people can tell apart.
const COLOURS: [&str; 8] = [
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000",
];

/// A point of a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PicturePoint<'a> {
    /// Where it is, in any unit.
    pub place: [f64; 2],
    /// The number of its group.
    pub group: usize,
    /// Shown under the pointer.
    pub label: &'a str,
}

/// Points in the colours of their groups, with lines between pairs of points. Both axes have the same unit.
///
/// # Panics
///
/// If a point has a group without a name, or a line ends at a point that there is not.
pub fn points_svg(
    title: &str,
    groups: &[&str],
    points: &[PicturePoint<'_>],
    lines: &[(usize, usize)],
) -> String {
    const SIZE: f64 = 640.0;
    const TOP: f64 = 50.0;
    const MARGIN: f64 = 16.0;
    let bounds = |axis: usize| {
        let places = points.iter().map(|point| point.place[axis]);
        places.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), x| {
            (least.min(x), most.max(x))
        })
    };
    let (x, y) = (bounds(0), bounds(1));
    let span = (x.1 - x.0).max(y.1 - y.0).max(1e-9);
    let at = |place: [f64; 2]| {
        let scale = (SIZE - 2.0 * MARGIN) / span;
        (
            MARGIN + (place[0] - x.0) * scale,
            TOP + MARGIN + (place[1] - y.0) * scale,
        )
    };
    let mut svg = beginning(title, SIZE, SIZE + TOP);
    let mut left = MARGIN;
    for (group, name) in groups.iter().enumerate() {
        let colour = COLOURS[group % COLOURS.len()];
        let _ = writeln!(
            svg,
            "<circle cx=\"{left}\" cy=\"38\" r=\"4\" fill=\"{colour}\"/><text x=\"{}\" y=\"42\">{}</text>",
            left + 8.0,
            escaped(name)
        );
        left += 24.0 + 7.0 * name.chars().count() as f64;
    }
    for &(a, b) in lines {
        let ((x1, y1), (x2, y2)) = (at(points[a].place), at(points[b].place));
        let _ = writeln!(
            svg,
            "<path d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\" stroke=\"#bbbbbb\" stroke-width=\"0.5\"/>"
        );
    }
    for point in points {
        assert!(point.group < groups.len(), "group {}", point.group);
        let (x, y) = at(point.place);
        let colour = COLOURS[point.group % COLOURS.len()];
        let label = escaped(point.label);
        let _ = writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\" fill-opacity=\"0.8\"><title>{label}</title></circle>"
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// A field of colours, dark for the least number and bright for the most: `values` has a row for each of `rows`.
///
/// # Panics
///
/// If the numbers are not as many as rows times columns.
pub fn heat_map_svg(title: &str, rows: &[&str], columns: &[&str], values: &[f32]) -> String {
    const CELL: f64 = 14.0;
    const TOP: f64 = 50.0;
    const MARGIN: f64 = 16.0;
    assert_eq!(values.len(), rows.len() * columns.len(), "numbers");
    let (least, most) = (values.iter()).fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), x| {
        (a.min(*x), b.max(*x))
    });
    let width = (2.0 * MARGIN + CELL * columns.len() as f64).max(360.0);
    let mut svg = beginning(title, width, TOP + MARGIN + CELL * rows.len() as f64);
    for step in 0..=20 {
        let share = f64::from(step) / 20.0;
        let _ = writeln!(
            svg,
            "<rect x=\"{}\" y=\"30\" width=\"8\" height=\"12\" fill=\"{}\"/>",
            MARGIN + 50.0 + 8.0 * f64::from(step),
            colour(share)
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{MARGIN}\" y=\"40\">{least:.3}</text><text x=\"{}\" y=\"40\">{most:.3}</text>",
        MARGIN + 224.0
    );
    for (row, (row_name, values)) in rows
        .iter()
        .zip(values.chunks_exact(columns.len().max(1)))
        .enumerate()
    {
        for (column, (column_name, value)) in columns.iter().zip(values).enumerate() {
            let share = f64::from((value - least) / (most - least).max(1e-9));
            let _ = writeln!(
                svg,
                "<rect x=\"{}\" y=\"{}\" width=\"{CELL}\" height=\"{CELL}\" fill=\"{}\"><title>{} | {} | {value:.3}</title></rect>",
                MARGIN + CELL * column as f64,
                TOP + CELL * row as f64,
                colour(share),
                escaped(row_name),
                escaped(column_name)
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn beginning(title: &str, width: f64, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"16\" y=\"20\" font-size=\"14\">{}</text>\n",
        escaped(title)
    )
}

/// Five colours of viridis, and those between them.
fn colour(share: f64) -> String {
    const ANCHORS: [[f64; 3]; 5] = [
        [68.0, 1.0, 84.0],
        [59.0, 82.0, 139.0],
        [33.0, 145.0, 140.0],
        [94.0, 201.0, 98.0],
        [253.0, 231.0, 37.0],
    ];
    let place = share.clamp(0.0, 1.0) * 4.0;
    let first = (place.floor() as usize).min(3);
    let rest = place - first as f64;
    let mixed = |i: usize| {
        let (a, b) = (ANCHORS[first][i], ANCHORS[first + 1][i]);
        (a + (b - a) * rest).round() as u8
    };
    format!("#{:02x}{:02x}{:02x}", mixed(0), mixed(1), mixed(2))
}

/// The beginning of a text for XML.
fn escaped(text: &str) -> String {
    const LONGEST: usize = 200;
    let mut found = String::new();
    for character in text.chars().take(LONGEST) {
        match character {
            '&' => found.push_str("&amp;"),
            '<' => found.push_str("&lt;"),
            '>' => found.push_str("&gt;"),
            '"' => found.push_str("&quot;"),
            c if c.is_control() => found.push(' '),
            c => found.push(c),
        }
    }
    if text.chars().nth(LONGEST).is_some() {
        found.push_str("...");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_keep_their_shape_and_labels_are_text() {
        let point = |place, group, label| PicturePoint {
            place,
            group,
            label,
        };
        let points = [
            point([-1.0, 0.0], 0, "a < b & \"c\"\n"),
            point([1.0, 1.0], 1, "d"),
        ];
        let svg = points_svg("t", &["queries", "documents"], &points, &[(0, 1)]);
        // 608 pixels are the longer side of 2, so the other one is 304.
        assert!(svg.contains("cx=\"16.0\" cy=\"66.0\""), "{svg}");
        assert!(svg.contains("cx=\"624.0\" cy=\"370.0\""), "{svg}");
        assert!(svg.contains("<title>a &lt; b &amp; &quot;c&quot; </title>"));
        assert!(svg.contains("M16.0 66.0L624.0 370.0"));
    }

    #[test]
    fn colours_go_from_the_least_to_the_most() {
        let svg = heat_map_svg("t", &["q1", "q2"], &["d1", "d2"], &[0.9, 0.1, 0.5, 0.9]);
        assert_eq!(svg.matches("<title>").count(), 4);
        for (cell, colour) in [
            ("q1 | d1", "#fde725"),
            ("q1 | d2", "#440154"),
            ("q2 | d1", "#21918c"),
        ] {
            let line = svg.lines().find(|line| line.contains(cell));
            assert!(
                line.is_some_and(|line| line.contains(colour)),
                "{cell}: {svg}"
            );
        }
    }
}
