//! A world: cells on a torus, and Conway's rule.

use std::fmt;

/// The most cells a world may have on one side.
pub const LONGEST_SIDE: usize = 200;

/// Cells in rows; each edge is joined to the one across.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    width: usize,
    height: usize,
    alive: Vec<bool>,
    generation: u64,
}

/// Why rows of text are no world.
#[derive(Debug, PartialEq, Eq)]
pub enum Malformed {
    /// No cells at all, or more than [`LONGEST_SIDE`] on a side.
    Size,
    /// A row that is not as long as the first.
    Ragged { row: usize },
    /// A character that is neither `#` nor `.`.
    Unknown { row: usize, character: char },
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size => write!(f, "a world has 1 to {LONGEST_SIDE} rows and columns"),
            Self::Ragged { row } => write!(f, "row {row} is not as long as the first"),
            Self::Unknown { row, character } => {
                write!(f, "row {row} holds {character:?}; a cell is '#' or '.'")
            }
        }
    }
}

impl World {
    /// Reads a world from rows of `#` (alive) and `.` (dead).
    pub fn from_rows<S: AsRef<str>>(rows: &[S]) -> Result<Self, Malformed> {
        let height = rows.len();
        let width = rows.first().map_or(0, |row| row.as_ref().chars().count());
        if !(1..=LONGEST_SIDE).contains(&width) || !(1..=LONGEST_SIDE).contains(&height) {
            return Err(Malformed::Size);
        }
        let mut alive = Vec::with_capacity(width * height);
        for (row, text) in rows.iter().enumerate() {
            for character in text.as_ref().chars() {
                alive.push(match character {
                    '#' => true,
                    '.' => false,
                    character => return Err(Malformed::Unknown { row, character }),
                });
            }
            if alive.len() != (row + 1) * width {
                return Err(Malformed::Ragged { row });
            }
        }
        Ok(Self { width, height, alive, generation: 0 })
    }

    /// The world as rows of `#` and `.`.
    pub fn rows(&self) -> Vec<String> {
        let text = |row: &[bool]| row.iter().map(|&alive| if alive { '#' } else { '.' }).collect();
        self.alive.chunks(self.width).map(text).collect()
    }

    /// How often the world has stepped.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How many cells are alive.
    pub fn population(&self) -> usize {
        self.alive.iter().filter(|&&alive| alive).count()
    }

    /// Lets one generation pass.
    pub fn step(&mut self) {
        let next = |index| {
            let (x, y) = (index % self.width, index / self.width);
            matches!((self.neighbours(x, y), self.alive[index]), (3, _) | (2, true))
        };
        self.alive = (0..self.alive.len()).map(next).collect();
        self.generation += 1;
    }

    fn neighbours(&self, x: usize, y: usize) -> usize {
        let (left, right) = (x + self.width - 1, x + 1);
        let (above, below) = (y + self.height - 1, y + 1);
        [
            (left, above),
            (x, above),
            (right, above),
            (left, y),
            (right, y),
            (left, below),
            (x, below),
            (right, below),
        ]
        .iter()
        .filter(|(x, y)| self.alive[y % self.height * self.width + x % self.width])
        .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(text: &str) -> World {
        World::from_rows(&text.split_whitespace().collect::<Vec<_>>()).unwrap()
    }

    fn after(mut world: World, generations: u64) -> World {
        for _ in 0..generations {
            world.step();
        }
        assert_eq!(world.generation(), generations);
        world
    }

    #[test]
    fn a_blinker_blinks() {
        let lying = world("..... ..... .###. ..... .....");
        let standing = world("..... ..#.. ..#.. ..#.. .....");
        assert_eq!(after(lying.clone(), 1).rows(), standing.rows());
        assert_eq!(after(lying.clone(), 2).rows(), lying.rows());
    }

    #[test]
    fn a_block_stays_and_a_loner_dies() {
        let block = world(".... .##. .##. ....");
        assert_eq!(after(block.clone(), 10).rows(), block.rows());
        assert_eq!(after(world("... .#. ..."), 1).population(), 0);
    }

    #[test]
    fn a_glider_comes_back_around_the_torus() {
        let glider = world(".#.... ..#... ###... ...... ...... ......");
        assert_ne!(after(glider.clone(), 4).rows(), glider.rows());
        assert_eq!(after(glider.clone(), 24).rows(), glider.rows());
        assert_eq!(after(glider, 24).population(), 5);
    }

    #[test]
    fn what_is_no_world_is_refused() {
        let long = ".".repeat(LONGEST_SIDE + 1);
        let cases: [(&[&str], Malformed); 6] = [
            (&[], Malformed::Size),
            (&[""], Malformed::Size),
            (&[&long], Malformed::Size),
            (&["..", "."], Malformed::Ragged { row: 1 }),
            (&["..", "..."], Malformed::Ragged { row: 1 }),
            (&[".#", ".x"], Malformed::Unknown { row: 1, character: 'x' }),
        ];
        for (rows, expected) in cases {
            assert_eq!(World::from_rows(rows), Err(expected), "{rows:?}");
        }
    }
}
