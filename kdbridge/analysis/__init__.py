"""Why did it stop: a stopped machine, a Snapshot or a dump put into words. Over any Source, without symbols."""
