"""The parts of `qig-core doctor`: each looks at one side of a run directory and yields findings. Changes nothing."""
