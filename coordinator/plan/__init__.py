"""From a job to what each worker does and needs: cut, memory, cost."""
