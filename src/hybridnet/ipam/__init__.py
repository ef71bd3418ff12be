"""Pure allocation logic: ranges, blocks, selection. No I/O."""
