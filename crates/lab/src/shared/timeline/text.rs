//! The timeline as text, 80 to 100 columns wide.

use rstlab_witness::{Lane, Side};

use super::{Mark, Timeline, TimelineLine, millis};
use crate::shared::wrapped::{columns, pieces};
use rstlab_cli::grouped;

/// The narrowest page: with fewer columns the words of the lanes cannot be read.
const MIN_COLUMNS: usize = 80;

/// Columns before a fact's words.
const FACT: usize = 10;

/// Columns for the words of client and proxy, for the wire, and for the words of upstream and kernel.
#[derive(Debug, Clone, Copy)]
struct Lanes {
    left: usize,
    wire: usize,
    right: usize,
}

impl Lanes {
    /// With the two numbers and the separators, which take 25 columns, the lanes fill the page.
    fn of(columns: usize) -> Self {
        let more = columns - MIN_COLUMNS;
        let (left, wire) = (17 + more * 3 / 10, 18 + more / 5);
        Self {
            left,
            wire,
            right: columns - 25 - left - wire,
        }
    }
}

impl Timeline {
    /// The picture in as many columns as there is room for, 80 to 100.
    pub(crate) fn text(&self) -> String {
        self.text_in(columns())
    }

    pub(super) fn text_in(&self, columns: usize) -> String {
        let columns = columns.max(MIN_COLUMNS);
        let mut page = Page {
            lanes: Lanes::of(columns),
            text: String::new(),
        };
        let Lanes { left, wire, right } = page.lanes;
        for title in &self.title {
            for piece in pieces(title, columns) {
                page.push(&piece);
            }
        }
        page.push("");
        let numbers = [format!("{:>9}", "ms"), format!("{:>10}", "pause")].concat();
        page.row(
            &numbers,
            &at_both_ends("client", "proxy", left),
            Wire::words("wire", wire),
            &at_both_ends("upstream", "kernel", right),
        );
        for (line, pause) in self.paused() {
            let pause = pause.map_or(String::new(), |pause| format!("+{}", millis(pause)));
            let numbers = format!("{:>9}{pause:>10}", millis(line.at));
            page.line(&numbers, line);
        }
        page.push("");
        for (about, fact) in &self.facts {
            for (number, piece) in pieces(fact, columns - FACT).iter().enumerate() {
                let about = if number == 0 { about } else { "" };
                page.push(&format!("{about:<FACT$}{piece}"));
            }
        }
        page.text
    }
}

/// Two words at the two ends of a lane.
fn at_both_ends(first: &str, last: &str, columns: usize) -> String {
    let rest = columns.saturating_sub(first.chars().count());
    format!("{first}{last:>rest$}")
}

/// The text between the two vertical lines, and the shape of these lines beside it.
struct Wire {
    left: char,
    between: String,
    right: char,
}

impl Wire {
    fn words(text: &str, columns: usize) -> Self {
        Self {
            left: '│',
            between: format!("{text:^columns$}"),
            right: '│',
        }
    }

    fn arrow(from: Side, text: &str, bad: bool, columns: usize) -> Self {
        let (stroke, leaves, arrives_from) = if bad {
            ('═', '╞', '╡')
        } else {
            ('─', '├', '┤')
        };
        // The arrow's head takes one column.
        let text = match text {
            "" => String::new(),
            text => format!(" {text} "),
        };
        let strokes = (columns - 1).saturating_sub(text.chars().count());
        let before: String = std::iter::repeat_n(stroke, strokes / 2).collect();
        let after: String = std::iter::repeat_n(stroke, strokes - strokes / 2).collect();
        match from {
            Side::Client => Self {
                left: leaves,
                between: format!("{before}{text}{after}►"),
                right: '│',
            },
            Side::Server => Self {
                left: '│',
                between: format!("◄{after}{text}{before}"),
                right: arrives_from,
            },
        }
    }
}

/// The text so far.
struct Page {
    lanes: Lanes,
    text: String,
}

impl Page {
    fn push(&mut self, line: &str) {
        self.text += line.trim_end();
        self.text.push('\n');
    }

    fn row(&mut self, numbers: &str, left: &str, wire: Wire, right: &str) {
        let Wire {
            left: from,
            between,
            right: to,
        } = wire;
        let columns = self.lanes.left;
        self.push(&format!(
            "{numbers:<19}  {left:<columns$} {from}{between}{to} {right}"
        ));
    }

    /// A line of the timeline. Words that are too long for their lane go on in the next rows.
    fn line(&mut self, numbers: &str, line: &TimelineLine) {
        let Lanes { left, wire, right } = self.lanes;
        let empty = || Wire::words("", wire);
        let (lane, text) = match &line.mark {
            Mark::Arrow { from, text, bad } => {
                // A label that is too long for the wire stands above its arrow.
                let label = text.chars().count();
                if label + 4 > wire {
                    self.row(numbers, "", Wire::words(text, wire), "");
                    self.row("", "", Wire::arrow(*from, "", *bad, wire), "");
                } else {
                    self.row(numbers, "", Wire::arrow(*from, text, *bad, wire), "");
                }
                return;
            }
            Mark::LeftOut(count) => {
                let text = format!("… {} lines are not drawn", grouped(*count as u64));
                // It may be longer than a lane.
                self.push(&format!("{:21}{text}", ""));
                return;
            }
            Mark::Words { lane, text, .. } => (*lane, text),
        };
        let columns = match lane {
            Lane::Client | Lane::Proxy => left,
            Lane::Wire => wire,
            Lane::Upstream | Lane::Kernel => right,
        };
        for (number, piece) in pieces(text, columns).iter().enumerate() {
            let numbers = if number == 0 { numbers } else { "" };
            match lane {
                Lane::Client => self.row(numbers, piece, empty(), ""),
                Lane::Proxy => self.row(numbers, &format!("{piece:>left$}"), empty(), ""),
                Lane::Wire => self.row(numbers, "", Wire::words(piece, wire), ""),
                Lane::Upstream => self.row(numbers, "", empty(), piece),
                Lane::Kernel => self.row(numbers, "", empty(), &format!("{piece:>right$}")),
            }
        }
    }
}
