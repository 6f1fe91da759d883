"""What each command of qig-core does, between its arguments and its output. Computes nothing itself."""
