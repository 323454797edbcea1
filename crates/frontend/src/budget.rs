//! How much text the variables of one build may come to, and how much work.
//!
//! A few lines of a Dockerfile can double a variable until it is a megabyte long, and a few
//! thousand more can repeat it, or look for patterns in it: the memory and the time for that would
//! be out of proportion to the file.

use std::cell::Cell;

use formwork_diagnostics::Span;
use formwork_dockerfile::ExpandError;

/// More than all that anybody has meant so far, and less than what a machine would miss.
const LIMIT: usize = 64 << 20;

/// What it takes to find out that a text is too long: about what it would be.
const FRUITLESS: usize = 1 << 20;

/// What is taken for a text in which something is wrong, whatever has been done until then.
const MISTAKEN: usize = FRUITLESS / 16;

/// What is left of it.
#[derive(Debug)]
pub(crate) struct Budget(Cell<usize>);

impl Budget {
    pub(crate) fn new() -> Self {
        Self(Cell::new(LIMIT))
    }

    /// Takes the length of a text.
    ///
    /// # Errors
    ///
    /// Fails for what is at the place of the text if nothing is left.
    pub(crate) fn take(&self, length: usize, span: Span) -> Result<(), ExpandError> {
        let left = self.0.get().checked_sub(length);
        self.0.set(left.unwrap_or(0));
        left.map(drop).ok_or(ExpandError::TooLarge { span })
    }

    /// Expands something, whose cost is taken, and so is the work for what would be too long.
    ///
    /// # Errors
    ///
    /// Fails as the expansion does, and without it if nothing is left.
    pub(crate) fn expand<T>(
        &self,
        span: Span,
        expand: impl FnOnce() -> Result<T, ExpandError>,
        cost: impl FnOnce(&T) -> usize,
    ) -> Result<T, ExpandError> {
        if self.is_spent() {
            return Err(ExpandError::TooLarge { span });
        }
        let result = expand();
        match &result {
            Ok(text) => self.take(cost(text), span)?,
            Err(ExpandError::TooLarge { .. }) => self.take(FRUITLESS, span)?,
            Err(_) => self.take(MISTAKEN, span)?,
        }
        result
    }

    /// Whether nothing is left.
    pub(crate) fn is_spent(&self) -> bool {
        self.0.get() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_ends() {
        let (budget, span) = (Budget::new(), Span::new(1, 2));
        budget.take(LIMIT - 1, span).unwrap();
        budget.take(1, span).unwrap();
        assert!(budget.take(1, span).is_err());
        assert!(Budget::new().take(LIMIT + 1, span).is_err());
    }

    #[test]
    fn mistakes_cost_something_as_well() {
        let (budget, span) = (Budget::new(), Span::new(1, 2));
        let wrong = || Err::<(), _>(ExpandError::UnclosedBrace { span });
        for _ in 0..LIMIT / MISTAKEN {
            assert_eq!(budget.expand(span, wrong, |()| 0), wrong());
        }
        assert!(budget.is_spent());
    }
}
