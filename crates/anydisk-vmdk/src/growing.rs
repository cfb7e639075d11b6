//! A list that gets longer while others read it.

use std::ops::Index;
use std::sync::OnceLock;

/// Values in order. What is in the list stays where it is, so it can be lent while more is added.
#[derive(Debug)]
pub(crate) struct Growing<T> {
    first: Vec<T>,
    more: OnceLock<Box<Self>>,
}

impl<T> From<Vec<T>> for Growing<T> {
    fn from(first: Vec<T>) -> Self {
        Self { first, more: OnceLock::new() }
    }
}

impl<T> Growing<T> {
    /// Adds values. One caller at a time.
    pub(crate) fn extend(&self, values: Vec<T>) {
        let mut last = self;
        while let Some(more) = last.more.get() {
            last = more;
        }
        let added = last.more.set(Box::new(values.into()));
        assert!(added.is_ok(), "values are added by one caller at a time");
    }

    /// All values, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let lists = std::iter::successors(Some(self), |list| list.more.get().map(|list| &**list));
        lists.flat_map(|list| &list.first)
    }

    /// Number of values.
    pub(crate) fn len(&self) -> usize {
        self.first.len() + self.more.get().map_or(0, |more| more.len())
    }

    /// Value number `index`.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        match index.checked_sub(self.first.len()) {
            None => self.first.get(index),
            Some(rest) => self.more.get()?.get(rest),
        }
    }

    /// The last value.
    #[inline]
    pub(crate) fn last(&self) -> Option<&T> {
        match self.more.get() {
            None => self.first.last(),
            Some(more) => more.last().or_else(|| self.first.last()),
        }
    }

    /// The number of the first value of which `is_before` does not hold; it holds of no later one.
    #[inline]
    pub(crate) fn partition_point(&self, is_before: impl Fn(&T) -> bool) -> usize {
        let mut list = self;
        let mut passed = 0;
        loop {
            let index = list.first.partition_point(&is_before);
            passed += index;
            match list.more.get().filter(|_| index == list.first.len()) {
                Some(more) => list = more,
                None => return passed,
            }
        }
    }
}

impl<T> Index<usize> for Growing<T> {
    type Output = T;

    fn index(&self, index: usize) -> &T {
        self.get(index).expect("the index is one of this list")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_in_several_steps_is_one_list() {
        let list = Growing::from(vec![1, 3]);
        let first = &list[0];
        list.extend(vec![]);
        list.extend(vec![5]);
        list.extend(vec![7, 9]);
        assert_eq!(list.iter().copied().collect::<Vec<_>>(), [1, 3, 5, 7, 9]);
        assert_eq!((*first, list.len(), list.last()), (1, 5, Some(&9)));
        for wanted in 0..11 {
            let model = [1, 3, 5, 7, 9].partition_point(|value| *value < wanted);
            assert_eq!(list.partition_point(|value| *value < wanted), model);
        }
        assert_eq!((list.get(4), list.get(5)), (Some(&9), None));
        assert_eq!(Growing::from(vec![1]).last(), Some(&1));
    }
}
