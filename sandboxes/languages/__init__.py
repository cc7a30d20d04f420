"""Programs in any language that a suite declares: compiled and run in a box, judged by what they write."""
