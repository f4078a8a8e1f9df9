//! The timeline as an SVG picture.

use std::fmt::Write as _;

use rstlab_witness::{Lane, Side};

use super::{Mark, Timeline, TimelineLine, millis};
use crate::shared::wrapped::pieces;
use rstlab_cli::grouped;

/// Sizes and positions in pixels. A letter of the font is 7.2 pixels wide.
const WIDTH: usize = 1000;
const MARGIN: usize = 16;
const ROW: usize = 18;
const TIME: usize = 80;
const PAUSE: usize = 152;
const CLIENT: usize = 170;
const PROXY: usize = 424;
const UPSTREAM: usize = 688;
/// From a vertical line to the words beside it.
const BESIDE: usize = 10;
/// Where a fact's words begin.
const FACT: usize = 100;

/// Letters that fit in a lane, in a fact and in the title.
const LEFT_LETTERS: usize = 33;
const WIRE_LETTERS: usize = 34;
const RIGHT_LETTERS: usize = 40;
const FACT_LETTERS: usize = 122;
const TITLE_LETTERS: usize = 130;

const STYLE: &str = "\
text{font:12px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#1c2733}\
.title{font-weight:bold}.name{font-weight:bold;fill:#5b6875}.time{fill:#5b6875}\
.client{fill:#1c2733}.proxy{fill:#174f94}.wire{fill:#1c2733}.upstream{fill:#1d6b3c}.kernel{fill:#7d4a00}\
.bad{fill:#b8132a;font-weight:bold}\
line,path{stroke:#5b6875;fill:none}.life{stroke:#b9c3cc}\
.sent{stroke-width:1.3}line.reset{stroke:#b8132a;stroke-width:2.2}\
path{fill:#5b6875;stroke:none}path.reset{fill:#b8132a}";

impl Timeline {
    /// The picture as a sequence diagram, 1000 pixels wide, without scripts, fonts or other files.
    pub(crate) fn svg(&self) -> String {
        let mut drawing = SvgWriter {
            y: MARGIN,
            marks: String::new(),
        };
        for (number, title) in self.title.iter().enumerate() {
            for piece in pieces(title, TITLE_LETTERS) {
                drawing.y += ROW;
                let class = if number == 0 { "title" } else { "time" };
                drawing.text(MARGIN, TextAnchor::Start, class, &piece);
            }
        }
        drawing.y += ROW + ROW / 2;
        drawing.text(TIME, TextAnchor::End, "name", "ms");
        drawing.text(PAUSE, TextAnchor::End, "name", "pause");
        for (lane, name) in [
            (Lane::Client, "client"),
            (Lane::Proxy, "proxy"),
            (Lane::Wire, "wire"),
            (Lane::Upstream, "upstream"),
            (Lane::Kernel, "kernel"),
        ] {
            drawing.words(lane, "name", name);
        }
        let top = drawing.y + ROW / 3;
        for (line, pause) in self.paused() {
            drawing.y += ROW;
            if !matches!(line.mark, Mark::LeftOut(_)) {
                drawing.text(TIME, TextAnchor::End, "time", &millis(line.at));
                if let Some(pause) = pause {
                    let pause = format!("+{}", millis(pause));
                    drawing.text(PAUSE, TextAnchor::End, "time", &pause);
                }
            }
            drawing.line(line);
        }
        let bottom = drawing.y + ROW / 2;
        drawing.y += ROW / 2;
        for (about, fact) in &self.facts {
            for (number, piece) in pieces(fact, FACT_LETTERS).iter().enumerate() {
                drawing.y += ROW;
                if number == 0 {
                    drawing.text(MARGIN, TextAnchor::Start, "name", about);
                }
                drawing.text(FACT, TextAnchor::Start, "client", piece);
            }
        }
        let height = drawing.y + MARGIN + ROW / 2;
        let lives: String = [PROXY, UPSTREAM]
            .map(|x| {
                format!(
                    "<line class=\"life\" x1=\"{x}\" y1=\"{top}\" x2=\"{x}\" y2=\"{bottom}\"/>\n"
                )
            })
            .concat();
        // Without a background the letters would be unreadable in a dark viewer.
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
             viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n<title>{}</title>\n<style>{STYLE}</style>\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n{lives}{}</svg>\n",
            escaped(&self.title.join(", ")),
            drawing.marks
        )
    }
}

/// Which point of a text its position means.
#[derive(Clone, Copy)]
enum TextAnchor {
    Start,
    Middle,
    End,
}

struct SvgWriter {
    /// The baseline of the current row.
    y: usize,
    marks: String,
}

impl SvgWriter {
    fn text(&mut self, x: usize, anchor: TextAnchor, class: &str, text: &str) {
        let anchor = match anchor {
            TextAnchor::Start => "start",
            TextAnchor::Middle => "middle",
            TextAnchor::End => "end",
        };
        // Writing to a String does not fail.
        let _ = writeln!(
            self.marks,
            "<text class=\"{class}\" x=\"{x}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
            self.y,
            escaped(text)
        );
    }

    fn words(&mut self, lane: Lane, class: &str, text: &str) {
        let (x, anchor) = match lane {
            Lane::Client => (CLIENT, TextAnchor::Start),
            Lane::Proxy => (PROXY - BESIDE, TextAnchor::End),
            Lane::Wire => (usize::midpoint(PROXY, UPSTREAM), TextAnchor::Middle),
            Lane::Upstream => (UPSTREAM + BESIDE, TextAnchor::Start),
            Lane::Kernel => (WIDTH - MARGIN, TextAnchor::End),
        };
        self.text(x, anchor, class, text);
    }

    fn line(&mut self, line: &TimelineLine) {
        match &line.mark {
            Mark::Words { lane, text, bad } => {
                let (class, letters) = match lane {
                    Lane::Client => ("client", LEFT_LETTERS),
                    Lane::Proxy => ("proxy", LEFT_LETTERS),
                    Lane::Wire => ("wire", WIRE_LETTERS),
                    Lane::Upstream => ("upstream", RIGHT_LETTERS),
                    Lane::Kernel => ("kernel", RIGHT_LETTERS),
                };
                let class = if *bad { "bad" } else { class };
                for (number, piece) in pieces(text, letters).iter().enumerate() {
                    if number > 0 {
                        self.y += ROW;
                    }
                    self.words(*lane, class, piece);
                }
            }
            Mark::Arrow { from, text, bad } => {
                self.words(Lane::Wire, if *bad { "bad" } else { "wire" }, text);
                // The arrow is below its label.
                self.y += ROW / 2;
                self.arrow(*from, if *bad { "reset" } else { "sent" });
            }
            Mark::LeftOut(count) => {
                let text = format!("… {} lines are not drawn", grouped(*count as u64));
                self.words(Lane::Client, "time", &text);
            }
        }
    }

    fn arrow(&mut self, from: Side, class: &str) {
        let y = self.y - ROW / 4;
        let (start, tip, back) = match from {
            Side::Client => (PROXY, UPSTREAM, UPSTREAM - 9),
            Side::Server => (UPSTREAM, PROXY, PROXY + 9),
        };
        let (above, below) = (y - 4, y + 4);
        let _ = writeln!(
            self.marks,
            "<line class=\"{class}\" x1=\"{start}\" y1=\"{y}\" x2=\"{back}\" y2=\"{y}\"/>\
             <path class=\"{class}\" d=\"M{tip} {y}L{back} {above}L{back} {below}Z\"/>"
        );
    }
}

/// Escapes a text for the inside of an XML element.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
