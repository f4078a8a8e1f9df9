//! The timeline as text, at most 100 columns wide.

use rstlab_witness::{Lane, Side};

use super::{Mark, Timeline, TimelineLine, millis};
use crate::shared::wrapped::pieces;
use rstlab_cli::grouped;

/// Columns of a page.
const COLUMNS: usize = 100;

/// Columns for the words of client and proxy, for the wire, and for the words of upstream and kernel. Together with the
/// two numbers and the separators they make 100.
const LEFT: usize = 23;
const WIRE: usize = 22;
const RIGHT: usize = 30;

/// Columns before a fact's words.
const FACT: usize = 10;

impl Timeline {
    /// The picture in at most 100 columns.
    pub(crate) fn text(&self) -> String {
        let mut page = Page::default();
        for title in &self.title {
            for piece in pieces(title, COLUMNS) {
                page.push(&piece);
            }
        }
        page.push("");
        let numbers = [format!("{:>9}", "ms"), format!("{:>10}", "pause")].concat();
        page.row(
            &numbers,
            &at_both_ends("client", "proxy", LEFT),
            Wire::name(),
            &at_both_ends("upstream", "kernel", RIGHT),
        );
        for (line, pause) in self.paused() {
            let pause = pause.map_or(String::new(), |pause| format!("+{}", millis(pause)));
            let numbers = format!("{:>9}{pause:>10}", millis(line.at));
            page.line(&numbers, line);
        }
        page.push("");
        for (about, fact) in &self.facts {
            for (number, piece) in pieces(fact, COLUMNS - FACT).iter().enumerate() {
                let about = if number == 0 { about } else { "" };
                page.push(&format!("{about:<FACT$}{piece}"));
            }
        }
        page.0
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
    fn empty() -> Self {
        Self::words("")
    }

    fn name() -> Self {
        Self::words("wire")
    }

    fn words(text: &str) -> Self {
        Self {
            left: '│',
            between: format!("{text:^WIRE$}"),
            right: '│',
        }
    }

    fn arrow(from: Side, text: &str, bad: bool) -> Self {
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
        let strokes = (WIRE - 1).saturating_sub(text.chars().count());
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

#[derive(Default)]
struct Page(String);

impl Page {
    fn push(&mut self, line: &str) {
        self.0 += line.trim_end();
        self.0.push('\n');
    }

    fn row(&mut self, numbers: &str, left: &str, wire: Wire, right: &str) {
        let Wire {
            left: from,
            between,
            right: to,
        } = wire;
        self.push(&format!(
            "{numbers:<19}  {left:<LEFT$} {from}{between}{to} {right}"
        ));
    }

    /// A line of the timeline. Words that are too long for their lane go on in the next rows.
    fn line(&mut self, numbers: &str, line: &TimelineLine) {
        let (lane, text) = match &line.mark {
            Mark::Arrow { from, text, bad } => {
                // A label that is too long for the wire stands above its arrow.
                let label = text.chars().count();
                if label + 4 > WIRE {
                    self.row(numbers, "", Wire::words(text), "");
                    self.row("", "", Wire::arrow(*from, "", *bad), "");
                } else {
                    self.row(numbers, "", Wire::arrow(*from, text, *bad), "");
                }
                return;
            }
            Mark::LeftOut(count) => {
                let text = format!("… {} lines are not drawn", grouped(*count as u64));
                self.row("", &text, Wire::empty(), "");
                return;
            }
            Mark::Words { lane, text, .. } => (*lane, text),
        };
        let columns = match lane {
            Lane::Client | Lane::Proxy => LEFT,
            Lane::Wire => WIRE,
            Lane::Upstream | Lane::Kernel => RIGHT,
        };
        for (number, piece) in pieces(text, columns).iter().enumerate() {
            let numbers = if number == 0 { numbers } else { "" };
            match lane {
                Lane::Client => self.row(numbers, piece, Wire::empty(), ""),
                Lane::Proxy => self.row(numbers, &format!("{piece:>LEFT$}"), Wire::empty(), ""),
                Lane::Wire => self.row(numbers, "", Wire::words(piece), ""),
                Lane::Upstream => self.row(numbers, "", Wire::empty(), piece),
                Lane::Kernel => self.row(numbers, "", Wire::empty(), &format!("{piece:>RIGHT$}")),
            }
        }
    }
}
