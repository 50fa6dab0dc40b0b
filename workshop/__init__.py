"""What a teacher needs for a room: hub, simulator, plans, slides, dashboards."""
