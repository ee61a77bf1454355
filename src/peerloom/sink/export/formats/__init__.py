"""Write rows in one file format each; `peerloom.sink.export.exporter` finds them by their modules."""
