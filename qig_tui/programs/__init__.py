"""What programs beyond plain training tell in their events: phases of a suppressed run, an Ocean over several Garys."""
