"""What is: integration, coupling, basins and regimes of a model. What they mean is decided in safety."""
